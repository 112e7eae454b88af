"""from_torch, to_torch and swap: the new module takes the same parameters, and nothing else changes."""

import copy
import functools

import pytest
import torch
from modules import KINDS, NAMES, Tagger, assert_same, each_module, example, make, run, words
from torch import nn
from torch.testing import assert_close

import seqcells
from seqcells.io.swap import OURS


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
    """A subclass with its own forward."""

    def forward(self, input, hx=None):
        return super().forward(2 * input, hx)


def patched(replacement):
    module = nn.LSTM(2, 3)
    module.forward = replacement(module)
    return module


def holding(module):
    theirs = module.forward
    return lambda *args: theirs(*args)


def replaced_check():
    module = nn.LSTM(2, 3)
    module.check_forward_args = lambda *args: None
    return module


def clashing(place):
    module = nn.LSTM(2, 3)
    {"attribute": setattr, "buffer": nn.Module.register_buffer, "submodule": nn.Module.add_module}[place](
        module, "stream", {"attribute": 3, "buffer": torch.ones(1), "submodule": nn.Linear(1, 1)}[place]
    )
    return module


LEFT = {
    "subclass": (
        lambda: Subclassed(2, 3),
        TypeError,
        "^Subclassed overrides forward, which its calls or copies go through$",
    ),
    "a forward that holds torch's": (lambda: patched(holding), TypeError, "its forward was replaced on the instance"),
    "another forward": (lambda: patched(lambda _: torch.relu), TypeError, "its forward was replaced on the instance"),
    "another method": (replaced_check, TypeError, "its check_forward_args was replaced on the instance"),
    **{
        f"{place} with a name of ours": (
            lambda place=place: clashing(place),
            ValueError,
            "it has an attribute stream, which seqcells.LSTM has for itself",
        )
        for place in ("attribute", "buffer", "submodule")
    },
}


@pytest.mark.parametrize(("build", "error", "words"), LEFT.values(), ids=LEFT)
def test_what_cannot_be_converted_says_why(build, error, words):
    module = build()
    with pytest.raises(error, match=words):
        seqcells.LSTM.from_torch(module)
    model = nn.Sequential(module, nn.GRU(2, 3))
    kind, attributes = type(module), vars(module).copy()
    done = seqcells.swap(model)
    assert model[0] is module and type(module) is kind and vars(module) == attributes
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


def test_an_unknown_backend_is_told_at_once(model):
    with pytest.raises(ValueError, match="backend"):
        seqcells.swap(model, backend="nonsense")
    assert type(model.again) is nn.GRU


# What is on a module.


def new_forward(module, *args):
    module.calls.append("before")
    return module._old_forward(*args)


def hooked_as_by_accelerate(module):
    """accelerate's add_hook_to_module, as far as the module is concerned."""
    module.calls = []
    module._hf_hook = object()
    module._old_forward = module.forward
    module.forward = functools.update_wrapper(functools.partial(new_forward, module), module._old_forward)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN", "LSTMCell", "GRUCell", "RNNCell"])
def test_a_replaced_forward_is_carried_over(kind):
    model = nn.Sequential(make(nn, kind, {"dtype": torch.float64}))
    module, input = model[0], example(model[0])
    expected = run(model, input)
    hooked_as_by_accelerate(module)
    hook = module._hf_hook
    assert seqcells.swap(model).left == {}
    assert module._old_forward.__func__ is getattr(seqcells, kind).forward, "what is called in the end is ours"
    assert_close(run(model, input), expected)
    assert module.calls == ["before"] and module._hf_hook is hook
    seqcells.unswap(model)
    assert module._old_forward.__func__ is getattr(nn, kind).forward
    assert_close(run(model, input), expected, rtol=0, atol=0)
    assert module.calls == ["before"] * 2
    another = getattr(seqcells, kind).from_torch(module)
    assert another.forward.args == (another,) and another._old_forward.__self__ is another


def test_all_that_is_on_a_module_stays(model):
    """Attributes, buffers, submodules and further parameters stay, and every holder of the module holds the new one."""
    lstm = model.encoder["lstm"]
    holders = [lstm]
    lstm.tag, lstm.flatten_parameters = {"a": 1}, lambda: None
    lstm.register_buffer("mask", torch.ones(2), persistent=False)
    lstm.register_parameter("scale", nn.Parameter(torch.ones(3)))
    lstm.adapter = nn.Linear(2, 2)
    lstm.register_forward_pre_hook(lambda module, args: (holders[0].tag["a"] * args[0],))
    kept = {name: vars(lstm)[name] for name in ("tag", "flatten_parameters", "_buffers", "_modules", "_parameters")}
    expected, names = model.eval()(words()), list(model.state_dict())
    for change in (seqcells.swap, seqcells.unswap):
        assert change(model).left == {}
        assert model.encoder["lstm"] is holders[0]
        assert all(vars(lstm)[name] is value for name, value in kept.items())
        assert list(model.state_dict()) == names
        assert_close(model(words()), expected)


def test_a_plain_tensor_for_a_parameter_stays():
    """Weight-drop leaves such a tensor in an attribute, or only in torch.nn's list of flat weights."""
    for place in ("attribute", "list"):
        gru = make(nn, "GRU", {"dtype": torch.float64})
        weight = gru.weight_hh_l0.detach().clone().mul_(2).requires_grad_()
        del gru._parameters["weight_hh_l0"]
        if place == "attribute":
            gru.weight_hh_l0 = 1 * weight
        gru._flat_weights[1] = 1 * weight
        expected = gru(example(gru))[0]
        found = []
        for change in (seqcells.swap, seqcells.unswap):
            assert change(nn.Sequential(gru)).left == {}
            found.append(gru(example(gru))[0])
        grads = [torch.autograd.grad(each.sum(), weight, retain_graph=True)[0] for each in (expected, *found)]
        assert_close(found, [expected.detach().requires_grad_()] * 2)
        assert_close(grads[1:], grads[:1] * 2)


# A whole model.


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Tagger()


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
    assert report[-1] == "own: left, Subclassed overrides forward, which its calls or copies go through"
    assert "seqcells.unswap(model)" in report[-2]
    assert len(report) == len(NAMES) + 2


@pytest.mark.parametrize("root", [nn.LSTM(2, 3), nn.GRUCell(2, 3), Subclassed(2, 3)], ids=repr)
def test_a_root_cannot_be_replaced_in_place(root):
    with pytest.raises(TypeError, match=f"the model is itself a {type(root).__name__}: use .*from_torch"):
        seqcells.swap(root)


def test_ours_at_the_root_is_left_alone():
    assert seqcells.swap(seqcells.LSTM(2, 3)) == ({}, {})


def curve(model, optimizer, steps=30):
    """Losses of a classification, with dropout."""
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


def test_every_class_is_swapped():
    assert {kind for kind, _ in KINDS.values()} == {theirs.__name__ for theirs in OURS}
