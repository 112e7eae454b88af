"""Parameters that are copied, shared, replaced, computed by another module, or converted."""

import copy
import io
import pickle

import pytest
import torch
from modules import IN, KINDS, H, N, T, assert_same, both, each_backend, each_layer, each_module, example, make, run
from torch import nn
from torch.nn.utils import parametrizations, parametrize
from torch.testing import assert_close

import seqcells

# Copies.


def through_torch_save(module):
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES = {
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
    "pickle": lambda module: pickle.loads(pickle.dumps(module)),
    "torch.save": through_torch_save,
    "_replicate_for_data_parallel": lambda module: replica_of(module),
}


def replica_of(module):
    """A replica as nn.DataParallel makes it: parameters become plain tensors, set as attributes."""
    replica = module._replicate_for_data_parallel()
    for name, parameter in module._parameters.items():
        setattr(replica, name, None if parameter is None else parameter.detach().clone())
    return replica


PEEPHOLE = {"PeepholeLSTM": ("PeepholeLSTM", {"num_layers": 2}), "PeepholeLSTMCell": ("PeepholeLSTMCell", {})}


@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize(("kind", "settings"), (KINDS | PEEPHOLE).values(), ids=KINDS | PEEPHOLE)
def test_copies_work_like_the_original(kind, settings, way):
    module = make(seqcells, kind, {**settings, "backend": "reference"})
    twin = COPIES[way](module)
    assert type(twin) is type(module)
    assert repr(twin) == repr(module)
    input = example(module)
    assert_close(run(twin, input), run(module, input))


@each_module
@pytest.mark.parametrize("way", ["deepcopy", "pickle", "torch.save"])
def test_copies_are_independent(kind, settings, way):
    module = make(seqcells, kind, settings)
    before = run(module)
    twin = COPIES[way](module)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert_close(run(module), before, rtol=0, atol=0)


# Parameters that another module computes, shares or replaces.


def old_weight_norm(module, name):
    with pytest.warns(FutureWarning):
        return nn.utils.weight_norm(module, name)


class Double(nn.Module):
    def forward(self, weight):
        return 2 * weight


PARAMETRIZED = {
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "own": lambda module, name: parametrize.register_parametrization(module, name, Double()),
    "old weight_norm": old_weight_norm,
    "old spectral_norm": nn.utils.spectral_norm,
}


@pytest.mark.parametrize("how", PARAMETRIZED)
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN", "LSTMCell", "GRUCell", "RNNCell"])
@each_backend
def test_parametrizations(kind, backend, how):
    name = "weight_hh" if kind.endswith("Cell") else "weight_hh_l0"
    theirs, ours = make(nn, kind, {}).double(), make(seqcells, kind, {"backend": backend}).double()
    input = example(theirs)
    results = []
    for module in (theirs, ours):
        torch.manual_seed(0)
        PARAMETRIZED[how](module, name)
        optimizer = torch.optim.SGD(module.parameters(), lr=0.5)
        for _ in range(3):  # the next call must see what backward and the optimizer change
            optimizer.zero_grad()
            with parametrize.cached():  # spectral_norm takes a step at each reading
                state = module(input)
            while not isinstance(state, torch.Tensor):
                state = state[0]
            state.square().sum().backward()
            optimizer.step()
        results.append((state, dict(module.named_parameters())))
    assert_close(*results, rtol=1e-9, atol=1e-10)


@each_layer
@each_backend
def test_weight_tying(kind, backend):
    theirs, ours = make(nn, kind, {"num_layers": 2}), make(seqcells, kind, {"num_layers": 2, "backend": backend})
    grads = []
    for module in (theirs, ours):
        module.weight_hh_l1 = module.weight_hh_l0
        assert len(list(module.parameters())) == 7
        module(example(module))[0].sum().backward()
        grads.append((module.weight_hh_l0.grad, module.weight_ih_l1.grad))
    assert_close(*grads)
    assert ours.weight_hh_l1.grad is ours.weight_hh_l0.grad


@each_layer
@each_backend
def test_parameters_are_read_at_each_call(kind, backend):
    theirs, ours = make(nn, kind, {}, seed=1), make(seqcells, kind, {"backend": backend})
    ours.weight_hh_l0 = nn.Parameter(theirs.weight_hh_l0.detach().clone())  # replaced
    ours.weight_ih_l0.data = theirs.weight_ih_l0.data.clone()  # another storage
    with torch.no_grad():
        ours.bias_ih_l0.copy_(theirs.bias_ih_l0)  # in place
    del ours.bias_hh_l0
    ours.bias_hh_l0 = theirs.bias_hh_l0.detach().clone()  # a plain tensor, as weight dropout makes it
    assert_same(ours, theirs)


@each_layer
@each_backend
def test_functional_call(kind, backend):
    theirs, ours = make(nn, kind, {}), make(seqcells, kind, {"backend": backend})
    parameters = {name: (p.detach() + 0.1).requires_grad_() for name, p in theirs.named_parameters()}
    before = run(ours)
    outputs = [torch.func.functional_call(module, parameters, example(module))[0] for module in (theirs, ours)]
    assert_close(*outputs)
    grads = [torch.autograd.grad(output.sum(), list(parameters.values())) for output in outputs]
    assert_close(*grads)
    assert_close(run(ours), before, rtol=0, atol=0)


# Conversions.


@each_module
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_to_dtype(kind, settings, dtype):
    theirs, ours = both(kind, settings)
    assert {p.dtype for p in ours.to(dtype).parameters()} == {dtype}
    if dtype != torch.float64:
        ours.backend = "torch"  # test_parity covers the nearness of other backends in low precision
    assert_same(ours, theirs.to(dtype))


@each_module
def test_half_float_double(kind, settings):
    ours = make(seqcells, kind, settings)
    for convert, dtype in (("half", torch.float16), ("bfloat16", torch.bfloat16), ("double", torch.float64)):
        assert getattr(ours, convert)() is ours
        assert {p.dtype for p in ours.parameters()} == {dtype}


@each_module
def test_default_dtype(kind, settings):
    torch.set_default_dtype(torch.float64)
    try:
        theirs, ours = both(kind, settings)
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(map(torch.equal, ours.parameters(), theirs.parameters()))


@each_module
def test_on_the_meta_device_first(kind, settings):
    theirs = make(nn, kind, settings)
    ours = make(seqcells, kind, {**settings, "device": "meta"})
    assert {p.device.type for p in ours.parameters()} == {"meta"}
    with torch.device("meta"):
        assert {p.device.type for p in make(seqcells, kind, settings).parameters()} == {"meta"}
    ours.to_empty(device="cpu").load_state_dict(theirs.state_dict())
    assert_same(ours, theirs)


@each_layer
@each_backend
def test_shapes_on_the_meta_device(kind, backend):
    ours = make(seqcells, kind, {"device": "meta", "backend": backend, "bidirectional": True})
    output, _ = ours(torch.empty(T, N, IN, device="meta"))
    assert output.shape == (T, N, 2 * H)
    assert output.device.type == "meta"


@each_module
def test_moves_are_noticed(kind, settings):
    """`requires_grad_`, `zero_grad`, `apply`, `share_memory` and `train` are nn.Module's own methods."""
    ours = make(seqcells, kind, settings)
    assert not any(p.requires_grad for p in ours.requires_grad_(False).parameters())
    assert all(p.is_shared() for p in ours.share_memory().parameters())
    seen = []
    ours.apply(lambda module: seen.append(type(module)))
    assert seen == [type(ours)]
    assert not ours.eval().training
