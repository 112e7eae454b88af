"""unswap reverts swap: torch.nn's modules are as before, and code that checks for their types works."""

import copy
import functools
import operator
import re

import pytest
import torch
from modules import NAMES, Tagger, words
from torch import nn

import seqcells


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Tagger()


def test_the_way_back(model):
    kinds = {name: type(module) for name, module in model.named_modules(remove_duplicate=False)}
    expected, state = model.eval()(words()), copy.deepcopy(model.state_dict())
    parameters, modules = list(model.parameters()), list(model.modules())
    seqcells.swap(model)
    done = seqcells.unswap(model)
    assert set(done.replaced) == NAMES and done.left == {}
    assert {name: type(module) for name, module in model.named_modules(remove_duplicate=False)} == kinds
    assert all(map(operator.is_, model.parameters(), parameters))
    assert all(map(operator.is_, model.modules(), modules)) and model.again is model.stack[0]
    assert list(model.state_dict()) == list(state)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(model(words()), expected)
    assert "encoder.lstm: now torch.nn.LSTM" in str(done).splitlines()
    assert str(seqcells.unswap(model)) == "no recurrent module of seqcells in this model"


@pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated", "ignore:torch.quantize_per_tensor")
def test_tools_that_go_by_type_work_after_the_way_back(model):
    quantize = functools.partial(torch.ao.quantization.quantize_dynamic, qconfig_spec={nn.LSTM}, dtype=torch.qint8)
    assert type(seqcells.swap(model).replaced["encoder.lstm"]) is type(quantize(model).encoder["lstm"])
    seqcells.unswap(model)
    assert type(quantize(model).encoder["lstm"]) is torch.ao.nn.quantized.dynamic.LSTM


def test_ours_from_the_beginning_become_torchs_where_it_has_them():
    model = nn.Sequential(seqcells.GRU(2, 3, backend="reference").freeze(), seqcells.PeepholeLSTM(3, 3))
    done = seqcells.unswap(model)
    assert type(model[0]) is nn.GRU and repr(model[0]) == repr(nn.GRU(2, 3))
    assert done.left == {"1": "torch.nn has no module for PeepholeLSTM"}
    copy.deepcopy(model[0])(torch.zeros(1, 1, 2))
    assert vars(model[0]).keys() == vars(nn.GRU(2, 3)).keys()
    with pytest.raises(TypeError, match="the model is itself a LSTM: use its to_torch"):
        seqcells.unswap(seqcells.LSTM(2, 3))


def test_a_forward_that_holds_ours_is_left_with_the_reason(model):
    seqcells.swap(model)
    ours = model.again.forward
    model.again.forward = lambda *args: ours(*args)
    expected = model.eval()(words())
    done = seqcells.unswap(model)
    assert done.left.keys() == {"again", "stack.0"} and len(done.replaced) == len(NAMES) - 2
    assert done.left["again"].startswith("its forward was replaced on the instance by a function that holds")
    torch.testing.assert_close(model(words()), expected)


def _removed(module, name):
    delattr(module, name)


def _none(module, name):
    setattr(module, name, None)


def _smaller(module, name):
    setattr(module, name, nn.Parameter(torch.zeros(2, 3)))


@pytest.mark.parametrize("lose", (_removed, _none, _smaller))
@pytest.mark.parametrize(
    ("module", "name"),
    (
        (seqcells.LSTM(4, 6, num_layers=2), "weight_ih_l1"),
        (seqcells.LSTM(4, 6, proj_size=2), "weight_hr_l0"),
        (seqcells.GRU(4, 6, bidirectional=True), "bias_hh_l0_reverse"),
        (seqcells.RNNCell(4, 6), "weight_hh"),
        (seqcells.GRUCell(4, 6), "bias_ih"),
    ),
    ids=str,
)
def test_a_module_that_lost_a_weight_stays_ours(module, name, lose):
    """The error is that of our ``forward``; torch.nn's module would not raise it."""
    model = nn.Sequential(copy.deepcopy(module))
    lose(model[0], name)
    words = (
        rf"Expected {name} of size \(.*\), got \[2, 3\]" if lose is _smaller else f"expected {name} to be a tensor, got"
    )
    with pytest.raises((TypeError, RuntimeError), match=words):
        model[0].to_torch()
    assert re.match(words, seqcells.unswap(model).left["0"]) and type(model[0]) is type(module)


def test_a_parametrized_weight_is_not_evaluated_on_the_way_back():
    module = seqcells.LSTM(4, 6, bias=False)
    nn.utils.parametrizations.spectral_norm(module, "weight_hh_l0")
    before = copy.deepcopy(module.state_dict())
    back = module.to_torch()
    assert all(torch.equal(tensor, before[name]) for name, tensor in back.state_dict().items())
