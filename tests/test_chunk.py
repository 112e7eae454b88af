"""Weights lie in one chunk, as cuDNN requires, and stay there.

Without a GPU, a CPU function replaces torch's; on a GPU, the last tests call cuDNN itself.
"""

import copy
import io
import pickle

import pytest
import torch
from chunks import as_if_with_cudnn, broken, each_kind, example, is_whole, whole_to_cudnn
from modules import IN, N, make
from support import assert_equal_to, gradients, results
from torch import nn
from torch.nn.utils import parametrizations, prune

import seqcells
from seqcells.backends import cudnn_weights


@pytest.fixture
def asked(monkeypatch):
    return as_if_with_cudnn(monkeypatch)


# When weights are put together.


@each_kind
def test_torchs_function_is_asked_as_torch_asks_it(kind, settings, asked):
    module = make(seqcells, kind, settings)
    names = {"LSTM": "LSTM", "GRU": "GRU", "RNN": "RNN_RELU"}
    layers, proj_size = settings.get("num_layers", 1), settings.get("proj_size", 0)
    count = 2 * (1 + settings.get("bias", True)) + bool(proj_size)
    hidden = module.hidden_size
    directions = settings.get("bidirectional", False)
    assert asked == [(count, IN, names[kind], hidden, proj_size, layers, False, directions)]
    assert is_whole(module)
    module.flatten_parameters()
    assert len(asked) == 1, "what is together stays where it is"


@each_kind
def test_values_and_identities_stay(kind, settings, asked):
    theirs, ours = make(nn, kind, settings), make(seqcells, kind, settings)
    assert all(map(torch.equal, ours.parameters(), theirs.parameters())), "initial values for a seed"
    parameters = [*broken(ours).parameters()]
    before = [parameter.detach().clone() for parameter in parameters]
    versions = [parameter._version for parameter in parameters]
    ours.flatten_parameters()
    assert is_whole(ours)
    assert all(a is b for a, b in zip(parameters, ours.parameters(), strict=True))
    assert all(map(torch.equal, parameters, before))
    assert [p._version for p in parameters] == versions and all(p.is_leaf and p.requires_grad for p in parameters)
    assert [*ours.state_dict()] == [*theirs.state_dict()]


def saved_and_loaded(module):
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def loaded(module):
    module.load_state_dict(make(nn, "LSTM", {"num_layers": 2}, seed=3).state_dict())


def assigned(module):
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    module.load_state_dict(state, assign=True)


def stepped(module):
    optimizer = torch.optim.Adam(module.parameters())
    module(example(module))[0].sum().backward()
    optimizer.step()


def swapped(module):
    model = nn.Sequential(broken(module.to_torch()))
    seqcells.swap(model)
    return model[0]


def by_meta(module):
    new = type(module)(IN, module.hidden_size, 2, device="meta")
    new.to_empty(device="cpu").load_state_dict(module.state_dict())
    return new


class Mine(nn.LSTM):
    """A subclass that is swapped with its methods."""


def swapped_subclass(module):
    model = nn.Sequential(Mine(IN, 6, 2))
    seqcells.swap(model)
    return copy.deepcopy(model)[0]


WAYS = {
    "to": lambda module: module.to(torch.float64),
    "half": lambda module: module.half(),
    "there and back": lambda module: module.half().float(),
    "share_memory": lambda module: module.share_memory(),
    "load_state_dict": loaded,
    "load_state_dict, assigned": assigned,
    "an optimizer's step": stepped,
    "swap": swapped,
    "swap of a subclass, copied": swapped_subclass,
    "from_torch": lambda module: seqcells.LSTM.from_torch(broken(module.to_torch())),
    "deepcopy": copy.deepcopy,
    "deepcopy of a model": lambda module: copy.deepcopy(nn.Sequential(module))[0],
    "pickle": lambda module: pickle.loads(pickle.dumps(module)),
    "torch.save": saved_and_loaded,
    "pickle of a broken one": lambda module: pickle.loads(pickle.dumps(broken(module))),
    "by the meta device": by_meta,
    "pruned and not any more": lambda module: prune.remove(prune.identity(module, "weight_hh_l0"), "weight_hh_l0"),
    "flatten_parameters": lambda module: broken(module).flatten_parameters(),
}


@pytest.mark.parametrize("way", WAYS)
def test_one_chunk_after(way, asked, monkeypatch):
    module = make(seqcells, "LSTM", {"num_layers": 2, "backend": "torch"})
    found = WAYS[way](module)
    module = module if found is None else found
    if way.startswith("pruned"):
        assert not is_whole(module), "another Parameter, put there by somebody else"
        module.flatten_parameters()
    assert is_whole(module) and len([*module.parameters()]) == 8
    assert type(module).__module__ != "torch.nn.modules.rnn"
    twin = nn.LSTM(IN, module.hidden_size, 2).to(module.weight_hh_l0.dtype)
    twin.load_state_dict(module.state_dict())
    states = [torch.zeros(2, N, 6).to(example(module))] * 2
    assert_equal_to(*(results(each, example(module), states) for each in (module, twin)), 1e-6)


def test_a_copy_that_shares_parameters_leaves_them_where_they_are(asked):
    module = make(seqcells, "GRU", {})
    addresses = [p.data_ptr() for p in module.parameters()]
    twin = copy.copy(module)
    assert [p.data_ptr() for p in module.parameters()] == [p.data_ptr() for p in twin.parameters()] == addresses


def test_a_chunk_of_another_process_stays_where_it_is(asked):
    """This process does not know the chunk's layout yet."""
    module = make(seqcells, "GRU", {})
    addresses = [p.data_ptr() for p in module.parameters()]
    cudnn_weights._layouts.clear()
    module.flatten_parameters()
    assert [p.data_ptr() for p in module.parameters()] == addresses and len(asked) == 2


def test_a_step_after_backward_began_still_has_its_gradients(asked):
    module = broken(make(seqcells, "LSTM", {"backend": "torch"}))
    outputs = results(module, example(module), [torch.zeros(1, N, 6)] * 2)
    expected = gradients(results(module, example(module), [torch.zeros(1, N, 6)] * 2), [*module.parameters()])
    module.flatten_parameters()
    assert_equal_to(gradients(outputs, [*module.parameters()]), expected)


# When weights are not put together.


def tied(module):
    module.weight_hh_l1 = module.weight_hh_l0


def sharing_memory(module):
    module.weight_hh_l1.data = module.weight_hh_l0.data


def missing(module):
    del module.bias_hh_l0


def unequal(module):
    module.bias_hh_l0.data = module.bias_hh_l0.data.double()


def plain_tensor(module):
    del module.weight_hh_l0
    module.weight_hh_l0 = torch.randn(24, 6)


class Own(torch.Tensor):
    pass


def of_a_class(module):
    module.weight_hh_l0 = nn.Parameter(module.weight_hh_l0.detach().as_subclass(Own))


REFUSED = {
    "tied": tied,
    "sharing memory": sharing_memory,
    "missing": missing,
    "of two dtypes": unequal,
    "no parameter": plain_tensor,
    "of a class of its own": of_a_class,
    "parametrized": lambda module: parametrizations.spectral_norm(module, "weight_hh_l0") and None,
    "pruned": lambda module: prune.identity(module, "weight_hh_l0") and None,
    "on meta": lambda module: module.to("meta") and None,
}


@pytest.mark.parametrize("way", REFUSED)
def test_weights_that_are_left_where_they_are(way, asked):
    module = broken(make(seqcells, "LSTM", {"num_layers": 2}))
    REFUSED[way](module)
    del asked[:]
    norms = [buffer.clone() for buffer in module.buffers()]
    addresses = [p.data_ptr() for p in module.parameters()]
    module.flatten_parameters()
    assert not asked and [p.data_ptr() for p in module.parameters()] == addresses
    if way != "on meta":
        assert all(map(torch.equal, norms, module.buffers())), "no parametrization takes a step"


def test_in_inference_mode_parameters_stay_what_they_are(asked):
    module = broken(make(seqcells, "GRU", {}))
    with torch.inference_mode():
        module.flatten_parameters()
        made_there = make(seqcells, "GRU", {})
    assert is_whole(module) and not any(p.is_inference() for p in module.parameters())
    module(example(module))[0].sum().backward()
    made_there.flatten_parameters()
    assert all(p.is_inference() for p in made_there.parameters())


@pytest.mark.parametrize("kind", ["PeepholeLSTM", "IndRNN", "LiGRU"])
def test_cells_that_torch_lacks_have_none(kind, asked):
    make(seqcells, kind, {}).flatten_parameters()
    assert not asked


@pytest.mark.parametrize("where", ["cpu", "meta"])
def test_without_cudnn_nothing_is_done(where, monkeypatch):
    monkeypatch.setattr(torch, "_cudnn_rnn_flatten_weight", None)
    module = make(seqcells, "LSTM", {"device": where}).half()
    module.flatten_parameters()
    assert {p.device.type for p in copy.deepcopy(module).parameters()} == {where}


# On a GPU.

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")


@on_gpu
@pytest.mark.cuda
@pytest.mark.parametrize("way", [way for way in WAYS if WAYS[way] not in (by_meta, swapped_subclass)])
def test_on_a_gpu_one_chunk_after(way):
    module = make(seqcells, "LSTM", {"num_layers": 2, "backend": "torch"}).cuda()
    assert is_whole(module) and whole_to_cudnn(module)
    found = WAYS[way](module)
    module = module if found is None else found
    if way.startswith("pruned"):
        module.flatten_parameters()
    assert is_whole(module) and whole_to_cudnn(module)


@on_gpu
@pytest.mark.cuda
@each_kind
def test_on_a_gpu_one_chunk_from_the_beginning(kind, settings):
    module = make(seqcells, kind, {**settings, "backend": "torch", "device": "cuda"})
    assert is_whole(module) and whole_to_cudnn(module)
