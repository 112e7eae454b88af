"""Models of other packages train to the same losses after `seqcells.swap`, by the engine (`make integrations`)."""

from importlib.util import find_spec

import pytest
import torch
from torch import nn

import seqcells
from benchmarks.integrations.case import PACKAGES, cases
from benchmarks.integrations.measure import counted, difference, losses, prepared

pytestmark = pytest.mark.heavy


def every():
    for package, distribution in PACKAGES.items():
        if find_spec(package):
            yield from (pytest.param(case, id=f"{package}: {case.name}") for case in cases(package))
        else:
            words = f"{distribution} is not here: make integrations installs it"
            yield pytest.param(None, id=package, marks=pytest.mark.skip(reason=words))


def kinds(module):
    return [type(each) for each in module.modules()]


@pytest.mark.parametrize("case", every())
@pytest.mark.usefixtures("compiling")
def test_losses_are_the_same(case):
    torch_module, theirs, _ = prepared(case, None)
    module, ours, report = prepared(case, "cpu")
    assert report.left == {} and report.replaced and bool(report.adapted) == case.adapted
    assert not any(type(each) in (nn.LSTM, nn.GRU, nn.LSTMCell, nn.GRUCell) for each in module.modules())
    with counted(module) as calls:
        found = losses(ours)
    assert calls.keys() == {"cpu"} and calls["cpu"] >= len(report.replaced)
    assert difference(losses(theirs), found) < 1e-5
    seqcells.unswap(module)
    assert kinds(module) == kinds(torch_module)
    theirs(), ours()  # the step still runs, with torch.nn's layers again
    torch.manual_seed(9)
    expected = theirs()
    torch.manual_seed(9)
    assert difference([expected], [ours()]) < 1e-5
