"""Imitates on the CPU a GPU with cuDNN, as far as weights in one chunk go, for `test_chunk` and `test_chunk_calls`."""

import warnings
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from modules import IN, N, T

from seqcells.backends import cudnn_weights, torch_ops

KINDS = {
    "LSTM": ("LSTM", {}),
    "deep": ("LSTM", {"num_layers": 2, "bidirectional": True}),
    "projected": ("LSTM", {"proj_size": 2, "num_layers": 2}),
    "projected, no bias": ("LSTM", {"proj_size": 2, "bias": False}),
    "GRU": ("GRU", {"num_layers": 3, "bias": False}),
    "RNN": ("RNN", {"nonlinearity": "relu", "bidirectional": True}),
}
each_kind = pytest.mark.parametrize(("kind", "settings"), KINDS.values(), ids=KINDS)
PADDING = 8


def as_if_with_cudnn(monkeypatch):
    """Make the CPU look like a GPU with cuDNN.

    Returns a list of the arguments after the weights, for each call of torch's function. The layout is similar to
    cuDNN's: matrices first, then biases, each padded.
    """
    asked = []

    def flatten(weights, count, *rest):
        assert not torch.is_grad_enabled() and len(weights) % count == 0
        asked.append((count, *rest))
        order = sorted(weights, key=lambda tensor: tensor.dim() == 1)
        buffer = torch.zeros(sum(tensor.numel() + PADDING for tensor in weights), dtype=weights[0].dtype)
        begin = 0
        for tensor in order:
            place = buffer[begin : begin + tensor.numel()].view_as(tensor)
            tensor.set_(place.copy_(tensor))
            begin += tensor.numel() + PADDING
        return buffer

    def suits(tensors):
        return all(tensor.device.type == "cpu" and tensor.dtype == tensors[0].dtype for tensor in tensors)

    monkeypatch.setattr(torch, "_cudnn_rnn_flatten_weight", flatten)
    monkeypatch.setattr(cudnn_weights, "rnn", SimpleNamespace(get_cudnn_mode=lambda mode: mode))
    monkeypatch.setattr(cudnn_weights, "on_cuda_with_cudnn", suits)
    monkeypatch.setattr(cudnn_weights, "DEVICE", "cpu")
    monkeypatch.setattr(cudnn_weights, "_layouts", {})
    return asked


def recorded(monkeypatch):
    """A list that gets the weights of each call of torch's operator."""
    given = []

    def recording(operator):
        def run(*arguments):
            # For a packed input, the batch sizes come before the states.
            given.append(arguments[3] if torch.is_tensor(arguments[1]) and arguments[1].dim() == 1 else arguments[2])
            return operator(*arguments)

        return run

    for name, (layers, step) in torch_ops.OPERATORS.items():
        monkeypatch.setitem(torch_ops.OPERATORS, name, (recording(layers), step))
    return given


def lie_in_one_chunk(tensors):
    """Whether tensors lie in one storage, from its beginning, without overlap, by their addresses."""
    spans = sorted((t.data_ptr(), t.data_ptr() + t.nbytes) for t in tensors)
    storages = {t.untyped_storage().data_ptr() for t in tensors}
    return len(storages) == 1 and spans[0][0] in storages and all(a[1] <= b[0] for a, b in pairwise(spans))


def is_whole(module):
    return lie_in_one_chunk([*module.parameters()])


def broken(module):
    """The same module; each of its weights gets memory of its own."""
    for parameter in module.parameters():
        parameter.data = parameter.data.clone()
    return module


def example(module):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(T, N, IN, generator=generator).to(next(module.parameters()))


def whole_to_cudnn(module):
    """Whether a call gives no warning from torch's operator that it must compact the weights."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        module(example(module))
    return not [each for each in caught if "single contiguous chunk" in str(each.message)]
