"""Parametrized and pruned modules: swap keeps what computes their weights."""

import copy
import warnings

import pytest
import torch
from modules import example, make
from support import as_tuple, assert_equal_to, gradients
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

import seqcells


def old_weight_norm(module, name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.utils.weight_norm(module, name)


def pruned(module, name):
    prune.random_unstructured(module, name, amount=0.4)


def pruned_twice(module, name):
    prune.l1_unstructured(module, name, amount=0.4)
    prune.ln_structured(module, name, amount=0.2, n=2, dim=0)


class Halved(nn.Module):
    def forward(self, weight):
        return weight / 2


def two_of_them(module, name):
    parametrizations.weight_norm(module, name)
    parametrize.register_parametrization(module, name, Halved())
    parametrize.register_parametrization(module, name.replace("hh", "ih"), Halved())


def spectral_upon_another(module, name):
    parametrize.register_parametrization(module, name.replace("hh", "ih"), Halved())
    parametrizations.spectral_norm(module, name)


HOW = {
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "two": two_of_them,
    "spectral_norm beside another": spectral_upon_another,
    "old weight_norm": old_weight_norm,
    "old spectral_norm": nn.utils.spectral_norm,
    "pruned": pruned,
    "pruned twice": pruned_twice,
}


def built(kind, how, training):
    module = make(nn, kind, {"dtype": torch.float64})
    HOW[how](module, "weight_hh" if kind.endswith("Cell") else "weight_hh_l0")
    return nn.Sequential(module.train(training))


def results(model):
    """Outputs and gradients; spectral_norm takes its steps in training."""
    output = model(example(model[0]))
    output, final = output if isinstance(output, tuple) else (output, ())
    outputs = [output, *as_tuple(final)]
    return [each.detach() for each in outputs] + gradients(outputs, list(model.parameters()))


@pytest.mark.parametrize("training", [True, False], ids=["training", "eval"])
@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "LSTMCell", "RNNCell"])
def test_weights_are_computed_as_before(kind, how, training):
    model, theirs = built(kind, how, training), built(kind, how, training)
    parameters, keys = list(model.parameters()), list(model.state_dict())
    report = seqcells.swap(model)
    assert report.left == {} and isinstance(model[0], getattr(seqcells, kind))
    for _ in range(2):
        assert_equal_to(results(model), results(theirs))
    assert all(ours is before for ours, before in zip(model.parameters(), parameters, strict=True))
    state = copy.deepcopy(dict(model.state_dict()))
    seqcells.unswap(model)
    assert isinstance(model[0], getattr(nn, kind)) and not isinstance(model[0], getattr(seqcells, kind))
    assert list(model.state_dict()) == keys
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert_equal_to(results(model), results(theirs))


@pytest.mark.parametrize("end", ["ours", "torch's"])
def test_a_parametrization_can_be_removed(end):
    model = built("GRU", "weight_norm", True)
    weight = model[0].weight_hh_l0.detach().clone()
    seqcells.swap(model)
    if end == "torch's":
        seqcells.unswap(model)
    parametrize.remove_parametrizations(model[0], "weight_hh_l0")
    assert type(model[0]) is (seqcells.GRU if end == "ours" else nn.GRU)
    assert torch.equal(model[0].weight_hh_l0, weight)


def test_pruning_can_be_removed():
    model = built("LSTM", "pruned", True)
    weight = model[0].weight_hh_l0.detach().clone()
    seqcells.swap(model)
    prune.remove(model[0], "weight_hh_l0")
    assert torch.equal(model[0].weight_hh_l0, weight) and isinstance(model[0].weight_hh_l0, nn.Parameter)


def test_from_torch_and_to_torch_share_the_parametrization():
    theirs = built("LSTM", "orthogonal", False)[0]
    ours = seqcells.LSTM.from_torch(theirs)
    assert ours.parametrizations is theirs.parametrizations
    for module in (ours, ours.to_torch()):
        assert_equal_to(results(nn.Sequential(module)), results(nn.Sequential(theirs)))
