"""Helpers that tests share: cells by name, backends that can run them, torch.nn's counterparts, comparisons."""

import contextlib
import ctypes
import shutil
from functools import cache, partial

import pytest
import torch
from torch import nn

import seqcells
from seqcells.backends import BACKENDS
from seqcells.cells import REGISTRY
from seqcells.kernels import cpu
from seqcells.request.call import Call

needs_compiler = pytest.mark.skipif(
    cpu.why_not_available() is not None or shutil.which("c++") is None,
    reason="no C++ compiler, or no engine to go with it",
)

TORCH_LAYERS = {
    "lstm": nn.LSTM,
    "gru": nn.GRU,
    "rnn_tanh": nn.RNN,
    "rnn_relu": partial(nn.RNN, nonlinearity="relu"),
}
TORCH_CELLS = {
    "lstm": nn.LSTMCell,
    "gru": nn.GRUCell,
    "rnn_tanh": nn.RNNCell,
    "rnn_relu": partial(nn.RNNCell, nonlinearity="relu"),
}
_LAYERS = {
    "lstm": seqcells.LSTM,
    "gru": seqcells.GRU,
    "rnn_tanh": seqcells.RNN,
    "rnn_relu": partial(seqcells.RNN, nonlinearity="relu"),
}
_CELLS = {
    "lstm": seqcells.LSTMCell,
    "gru": seqcells.GRUCell,
    "rnn_tanh": seqcells.RNNCell,
    "rnn_relu": partial(seqcells.RNNCell, nonlinearity="relu"),
}


@cache
def _defined(name):
    return seqcells.define(REGISTRY[name])


def layer(name, *args, **kwargs):
    """A layer of the cell with that name."""
    return (_LAYERS.get(name) or _defined(name)[0])(*args, **kwargs)


def cell(name, *args, **kwargs):
    """A cell module of the cell with that name."""
    return (_CELLS.get(name) or _defined(name)[1])(*args, **kwargs)


def pair(name, backend, sizes, device="cpu", dtype=torch.float64, **options):
    """torch.nn's layer, and ours with its weights. ``sizes``: features, hidden units."""
    theirs = TORCH_LAYERS[name](*sizes, device=device, dtype=dtype, **options)
    ours = layer(name, *sizes, device=device, dtype=dtype, backend=backend, **options)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


DEVICES = ["cpu"] + ["cuda"] * torch.cuda.is_available()


def backends(name, form="layers", options=(), devices=DEVICES, dtype=torch.float32):
    """The names of the backends that can run such a call on one of the devices."""
    calls = [Call(REGISTRY[name], form, torch.device(device), dtype, options) for device in devices]
    return [
        backend
        for backend, entry in BACKENDS.items()
        if entry.why_not_available() is None and any(entry.why_not(call) is None for call in calls)
    ]


def cases(names=tuple(REGISTRY), **call):
    """Pairs (cell name, backend) to parametrise over."""
    return [(name, backend) for name in names for backend in backends(name, **call)]


ENGINES = [name for name in backends("gru") if BACKENDS[name].engine]


MAIN = ("lstm", "gru")
"""The cells that `make test` tests in all forms; it tests every other cell in one form, and .ci/run in all."""
UNLIKE = (*MAIN, "peephole_lstm", "indrnn", "jordan")
"""Cells that differ in more than the equation of a unit. One has a product with a gradient of its own, one reads a
state after the step. One has no product, and the output of one is no state."""


def plain_if(condition):
    """Marks the part of a test that is repetition: it is heavy where a condition on its parameters, given by name, does
    not hold."""
    return pytest.mark.plain_if.with_args(condition)


def heavy_if(condition):
    """Marks a part of a test as exhaustive in the same way."""
    return pytest.mark.heavy_if.with_args(condition)


def as_tuple(states):
    return (states,) if isinstance(states, torch.Tensor) else tuple(states)


def like_module(states):
    """States in the form a module takes them."""
    return states[0] if len(states) == 1 else tuple(states)


def random_states(name, *shape, proj_size=0, **kwargs):
    """Random states of a cell, of ``shape`` each; the hidden state has the projected size."""
    sizes = [shape if k or not proj_size else (*shape[:-1], proj_size) for k in range(len(REGISTRY[name].states))]
    return [torch.randn(size, **kwargs) for size in sizes]


def results(module, input, hx, **kwargs):
    """Outputs and final states of a layer in one list; a PackedSequence as its data."""
    output, final = module(input, like_module(hx), **kwargs)
    output = output.data if isinstance(output, nn.utils.rnn.PackedSequence) else output
    return [output, *as_tuple(final)]


def gradients(outputs, inputs, seed=1):
    """Gradients of ``inputs`` through all ``outputs``, each weighted by random numbers of the seed."""
    generator = torch.Generator().manual_seed(seed)
    loss = sum((o * torch.randn(o.shape, generator=generator).to(o)).sum() for o in outputs)
    grads = torch.autograd.grad(loss, inputs, allow_unused=True)
    return [torch.zeros_like(i) if g is None else g for i, g in zip(inputs, grads, strict=True)]


def assert_equal_to(got, expected, tolerance=1e-12):
    """All tensors agree to ``tolerance``, relative to the largest value of each pair."""
    for index, (a, b) in enumerate(zip(got, expected, strict=True)):
        assert a.shape == b.shape and a.dtype == b.dtype, index
        scale = max(1.0, b.abs().max().item()) if b.numel() else 1.0
        assert torch.isfinite(a).all(), index
        difference = (a - b).abs().max().item() if b.numel() else 0.0
        assert difference <= tolerance * scale, (index, difference)


def distance(got, truth):
    """Root mean square of the difference, relative to that of ``truth``."""
    return ((got.double() - truth).norm() / truth.norm().clamp_min(1e-300)).item()


class _SignalStack(ctypes.Structure):
    _fields_ = [("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]


@contextlib.contextmanager
def own_signal_stack():
    """Restores the thread's stack for signal handlers.

    OpenVINO leaves a signal stack behind whose memory it has freed. The next handled signal would end the process.
    """
    change = getattr(ctypes.CDLL(None), "sigaltstack", None)
    before = _SignalStack()
    if change is not None:
        change(None, ctypes.byref(before))
    yield
    if change is not None:
        change(ctypes.byref(before), None)
