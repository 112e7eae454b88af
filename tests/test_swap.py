"""from_torch, to_torch and swap: the parameters themselves change hands, and nothing else changes."""

import copy

import pytest
import torch
from modules import KINDS, assert_same, each_module, example, make, run
from torch import nn
from torch.nn.utils import parametrizations, parametrize
from torch.testing import assert_close

import seqcells
from seqcells.swap import OURS


def assert_handed_over(new, old):
    """The same Parameter objects under the same names, None included, and the same settings."""
    assert list(new._parameters) == list(old._parameters)
    assert all(new._parameters[name] is parameter for name, parameter in old._parameters.items())
    assert repr(new) == repr(old)
    assert new.training == old.training


@pytest.mark.filterwarnings("error:dropout option")
@each_module
def test_from_torch_and_back(kind, settings):
    theirs = make(nn, kind, settings).eval()
    expected = run(theirs)
    ours = getattr(seqcells, kind).from_torch(theirs)
    assert type(ours) is getattr(seqcells, kind)
    assert_handed_over(ours, theirs)
    ours.backend = "torch"  # the same operators give the same bits
    assert_close(run(ours), expected, rtol=0, atol=0)
    back = ours.to_torch()
    assert type(back) is getattr(nn, kind)
    assert_handed_over(back, theirs)
    assert_close(run(back), expected, rtol=0, atol=0)


@each_module
def test_backend_may_be_chosen(kind, settings):
    theirs = make(nn, kind, settings)
    ours = getattr(seqcells, kind).from_torch(theirs, backend="reference")
    assert ours.plan(example(ours)).backend == "reference"
    assert_same(ours, theirs)
    model = nn.Sequential(theirs)
    seqcells.swap(model, backend="reference")
    assert model[0].backend == "reference"


def test_dropout_of_one_layer_warns_only_once():
    with pytest.warns(UserWarning, match="dropout option adds dropout"):
        theirs = nn.LSTM(2, 3, dropout=0.5)
    assert seqcells.LSTM.from_torch(theirs).dropout == 0.5


@each_module
@pytest.mark.parametrize("mode", [True, False], ids=["training", "eval"])
def test_training_mode_and_frozen_parameters_are_kept(kind, settings, mode):
    theirs = make(nn, kind, settings).train(mode).requires_grad_(False)
    ours = getattr(seqcells, kind).from_torch(theirs)
    assert ours.training is mode
    assert not any(p.requires_grad for p in ours.parameters())


class Subclassed(nn.LSTM):
    """Does something of its own in forward."""


def parametrized():
    return parametrizations.weight_norm(nn.LSTM(2, 3), "weight_hh_l0")


def weight_normed():
    with pytest.warns(FutureWarning):
        return nn.utils.weight_norm(nn.LSTM(2, 3), "weight_hh_l0")


def spectral_normed():
    return nn.utils.spectral_norm(nn.LSTM(2, 3), "weight_hh_l0")


def tampered():
    module = nn.LSTM(2, 3)
    module.register_parameter("scale", nn.Parameter(torch.ones(3)))
    return module


def dropped():
    module = nn.GRU(2, 3)
    del module.weight_hh_l0
    module.weight_hh_l0 = torch.zeros(9, 3)
    return module


LEFT = {
    "subclass": (lambda: Subclassed(2, 3), TypeError, "expected exactly LSTM, got Subclassed: a subclass may"),
    "parametrized": (parametrized, TypeError, "it is parametrized: convert first"),
    "old weight_norm": (weight_normed, ValueError, "not plain .*weight_hh_l0_g, weight_hh_l0_v"),
    "old spectral_norm": (spectral_normed, ValueError, "weight_hh_l0_orig"),
    "another parameter": (tampered, ValueError, "not plain .*scale"),
    "plain tensor for a parameter": (dropped, ValueError, "not plain"),
}


@pytest.mark.parametrize(("build", "error", "words"), LEFT.values(), ids=LEFT)
def test_what_cannot_be_converted_says_why(build, error, words):
    module = build()
    ours = seqcells.GRU if isinstance(module, nn.GRU) else seqcells.LSTM
    with pytest.raises(error, match=words):
        ours.from_torch(module)
    model = nn.Sequential(module, nn.GRU(2, 3))
    done = seqcells.swap(model)
    assert model[0] is module
    assert list(done.left) == ["0"]
    assert list(done.replaced) == ["1"]


@pytest.mark.parametrize("module", [nn.GRU(2, 3), nn.LSTMCell(2, 3), nn.Linear(2, 3), seqcells.LSTM(2, 3)], ids=repr)
def test_from_torch_wants_its_own_kind(module):
    with pytest.raises(TypeError, match=f"expected exactly LSTM, got {type(module).__name__}"):
        seqcells.LSTM.from_torch(module)


@pytest.mark.parametrize("ours", [seqcells.PeepholeLSTM(2, 3), seqcells.PeepholeLSTMCell(2, 3)], ids=repr)
def test_torch_has_no_peephole(ours):
    with pytest.raises(TypeError, match=f"torch.nn has no module for {type(ours).__name__}"):
        ours.to_torch()
    with pytest.raises(TypeError, match=r"expected exactly a module torch.nn has"):
        type(ours).from_torch(nn.LSTM(2, 3))


def test_our_subclasses_do_not_become_torchs():
    class Mine(seqcells.LSTM):
        pass

    with pytest.raises(TypeError, match=r"torch.nn has no module for Mine"):
        Mine(2, 3).to_torch()


def test_ours_parametrized_does_not_become_torchs():
    ours = parametrizations.weight_norm(seqcells.LSTM(2, 3), "weight_hh_l0")
    with pytest.raises(TypeError, match="it is parametrized: convert first"):
        ours.to_torch()


# A whole model.


class Tagger(nn.Module):
    """Recurrent layers and cells at every depth, some of them twice."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(20, 6)
        self.encoder = nn.ModuleDict({"lstm": nn.LSTM(6, 5, num_layers=2, bidirectional=True, dropout=0.2)})
        self.stack = nn.ModuleList([nn.GRU(10, 8), nn.Sequential(nn.RNN(8, 8, 1, "relu"))])
        self.again = self.stack[0]
        self.cells = nn.ModuleList([nn.LSTMCell(8, 8), nn.GRUCell(8, 8), nn.RNNCell(8, 8)])
        self.head = nn.Linear(8, 3)

    def forward(self, words):
        x = self.encoder["lstm"](self.embedding(words))[0]
        x = self.again(x)[0]
        x = self.stack[1][0](x)[0]
        lstm, gru, rnn = self.cells
        h, c = lstm(x[-1])
        return self.head(rnn(gru(h) + c))


NAMES = {"encoder.lstm", "stack.0", "stack.1.0", "again", "cells.0", "cells.1", "cells.2"}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Tagger()


def words(seed=0):
    return torch.randint(20, (7, 4), generator=torch.Generator().manual_seed(seed))


def test_swap_replaces_all_and_keeps_everything(model):
    olds = dict(model.named_modules(remove_duplicate=False))
    parameters = dict(model.named_parameters())
    expected = model.eval()(words())
    done = seqcells.swap(model)
    assert set(done.replaced) == NAMES
    assert done.left == {}
    for name, new in done.replaced.items():
        assert model.get_submodule(name) is new
        assert type(new) is getattr(seqcells, type(olds[name]).__name__)
        assert_handed_over(new, olds[name])
    for new in done.replaced.values():
        new.backend = "torch"  # the same operators give the same bits
    assert not any(isinstance(module, (nn.RNNBase, nn.RNNCellBase)) for module in model.modules())
    assert list(dict(model.named_parameters())) == list(parameters), "names and order of the state_dict"
    assert all(p is parameters[name] for name, p in model.named_parameters())
    assert torch.equal(model(words()), expected)


def test_a_shared_module_stays_shared(model):
    done = seqcells.swap(model)
    assert model.again is model.stack[0]
    assert done.replaced["again"] is done.replaced["stack.0"]


def test_swap_again_finds_nothing(model):
    seqcells.swap(model)
    done = seqcells.swap(model)
    assert done == ({}, {})
    assert str(done) == "no recurrent module of torch.nn in this model"


def test_the_report_is_readable(model):
    model.own = Subclassed(2, 3)
    report = str(seqcells.swap(model)).splitlines()
    assert "encoder.lstm: now seqcells.LSTM" in report
    assert report[-1].startswith("own: left, expected exactly a module torch.nn has, got Subclassed")
    assert len(report) == len(NAMES) + 1


@pytest.mark.parametrize("root", [nn.LSTM(2, 3), nn.GRUCell(2, 3), Subclassed(2, 3)], ids=repr)
def test_a_root_cannot_be_replaced_in_place(root):
    with pytest.raises(TypeError, match=f"the model is itself a {type(root).__name__}: use .*from_torch"):
        seqcells.swap(root)


def test_ours_at_the_root_is_left_alone():
    assert seqcells.swap(seqcells.LSTM(2, 3)) == ({}, {})


def curve(model, optimizer, steps=30):
    """Losses of a classification, dropout included."""
    torch.manual_seed(1)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(words()), words()[0] % 3)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("made", ["before", "after"])
def test_the_loss_curve_is_the_same(model, made):
    twin = copy.deepcopy(model)
    expected = curve(twin, torch.optim.Adam(twin.parameters(), lr=0.01))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    seqcells.swap(model, backend="torch")
    if made == "after":
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    assert curve(model, optimizer) == expected
    assert expected[-1] < 0.9 * expected[0]


def test_the_loss_curve_is_the_same_by_default(model):
    twin = copy.deepcopy(model.double())
    expected = curve(twin, torch.optim.Adam(twin.parameters(), lr=0.01))
    seqcells.swap(model)
    found = curve(model, torch.optim.Adam(model.parameters(), lr=0.01))
    assert found == pytest.approx(expected, rel=1e-9)


def test_hooks_are_kept_and_can_be_removed(model):
    calls = []
    lstm, cell = model.encoder["lstm"], model.cells[0]
    handles = [
        lstm.register_forward_pre_hook(lambda module, args: calls.append("before")),
        lstm.register_forward_hook(lambda module, args, output: calls.append("after")),
        lstm.register_forward_hook(lambda module, args, kwargs, output: calls.append("kwargs"), with_kwargs=True),
        cell.register_full_backward_hook(lambda module, grad_input, grad_output: calls.append("backward")),
        lstm.register_state_dict_pre_hook(lambda module, prefix, keep_vars: calls.append("state_dict")),
        lstm.register_load_state_dict_post_hook(lambda module, keys: calls.append("load")),
    ]
    seqcells.swap(model)
    model(words()).sum().backward()
    model.load_state_dict(model.state_dict())
    assert calls == ["before", "after", "kwargs", "backward", "state_dict", "load"]
    for handle in handles:
        handle.remove()
    model(words()).sum().backward()
    model.load_state_dict(model.state_dict())
    assert len(calls) == 6


def test_convert_first_then_parametrize(model):
    """As the reason for leaving a parametrized module advises."""
    seqcells.swap(model)
    parametrizations.weight_norm(model.encoder["lstm"], "weight_hh_l0")
    assert parametrize.is_parametrized(model.encoder["lstm"])
    curve(model, torch.optim.SGD(model.parameters(), lr=0.1), steps=2)
    assert model.encoder["lstm"].parametrizations.weight_hh_l0.original0.grad is not None


def test_every_class_is_swapped():
    assert {kind for kind, _ in KINDS.values()} == {theirs.__name__ for theirs in OURS}
