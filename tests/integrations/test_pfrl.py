"""pfrl's `RecurrentSequential` after `seqcells.swap`: nested modules, layers that stay, and subclasses with their own
methods."""

import collections

import pytest
import torch
from torch import nn

import seqcells

pytestmark = pytest.mark.heavy
pytest.importorskip("pfrl", reason="pfrl is not here: make integrations installs it")

from pfrl.nn import RecurrentSequential  # noqa: E402
from pfrl.utils.recurrent import one_step_forward, pack_and_forward  # noqa: E402


class Shifted(nn.LSTM):
    """A subclass with its own forward, which `swap` leaves."""

    def forward(self, input, hx=None):
        return super().forward(input, hx)


class Own(RecurrentSequential):
    def forward(self, sequences, recurrent_state):
        return super().forward(sequences, recurrent_state)


Pair = collections.namedtuple("Pair", "a b")


class Twice(nn.Module):
    def forward(self, x):
        return Pair(x, 2 * x)


class Sum(nn.Module):
    def forward(self, pair):
        return pair.a + pair.b


MODELS = {
    "a layer": lambda: RecurrentSequential(nn.Linear(3, 4), nn.LSTM(4, 5), nn.Linear(5, 2)),
    "two in a row": lambda: RecurrentSequential(nn.GRU(3, 4), nn.LSTM(4, 5)),
    "one that stays": lambda: RecurrentSequential(nn.LSTM(3, 4), Shifted(4, 5), nn.Linear(5, 2)),
    "a forward of its own": lambda: Own(nn.GRU(3, 5)),
    "nested": lambda: RecurrentSequential(RecurrentSequential(nn.GRU(3, 5), nn.ReLU()), nn.Linear(5, 2)),
    "pairs between": lambda: RecurrentSequential(nn.GRU(3, 5), Twice(), Sum()),
}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_sequences_and_steps(make):
    torch.manual_seed(0)
    model, episodes = make(), [torch.randn(4, 3), torch.randn(2, 3)]

    def everything():
        output, states = pack_and_forward(model, episodes, None)
        return output, one_step_forward(model, torch.randn(2, 3, generator=torch.Generator().manual_seed(1)), states)

    expected = everything()
    seqcells.swap(model)
    torch.testing.assert_close(everything(), expected)
    with pytest.raises(AssertionError):
        pack_and_forward(model, episodes, (None,) * 3)
    seqcells.unswap(model)
    torch.testing.assert_close(everything(), expected, rtol=0, atol=0)
