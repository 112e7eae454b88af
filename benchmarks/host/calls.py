"""The kinds of calls and their providers: one layer, one direction, states given, float32."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import seqcells
from seqcells.cells import REGISTRY

from .stub import Stub

STEPS, BATCH, FEATURES, HIDDEN = 4, 2, 16, 128
"""Small enough that the CPU's products take little time beside the Python. Large enough that, on a GPU, programs meet
at each step."""
PREPARING = 4
"""Calls before the measured call. At the second call with the same signature, seqcells prepares for later calls."""
STUB, TORCH = "stub", "torch.nn"
CELLS = {"lstm": "LSTM", "gru": "GRU"}
"""The class names of the layers in torch.nn and in seqcells."""


class Kind(NamedTuple):
    """A kind of call."""

    name: str
    form: str
    """``layer``; ``cell``, one step of a cell module; ``stream``, one step of a layer that holds its states."""
    trains: bool
    limit: int
    """The largest number of operators that our prepared call should need."""


KINDS = (
    Kind("layer inference", "layer", False, 6),
    Kind("layer training", "layer", True, 16),
    Kind("cell inference", "cell", False, 3),
    Kind("cell training", "cell", True, 16),
    Kind("stream step", "stream", False, 3),
)


class Call(NamedTuple):
    """A call to count and time."""

    run: Callable[[], Any]
    plan: str = ""
    """For seqcells: how the call runs."""


def call(kind: Kind, cell: str, provider: str, device: str) -> Call:
    """A provider's call, prepared. Call this function, and its result, with gradients enabled where the kind trains.

    Args:
        provider: ``stub``, ``torch.nn``, or a backend of ours.
    """
    torch.manual_seed(0)
    ours = provider not in (STUB, TORCH)
    name = CELLS[cell] + "Cell" * (kind.form == "cell")
    options = {"device": device, **({"backend": provider} if ours else {})}
    module = getattr(seqcells if ours else nn, name)(FEATURES, HIDDEN, **options)
    input, states = _tensors(kind, cell, device)
    plan = module.plan(input).reason.removeprefix("asked for by name").removeprefix("; ") if ours else ""
    if provider == STUB:
        forward = partial(Stub.apply, _results(input, states), input, *states, *module.parameters())
    elif ours and kind.form == "stream":
        forward = partial(module.stream(BATCH), input[0])
    else:
        forward = partial(module, input, states[0] if len(states) == 1 else tuple(states))
    if kind.trains:
        wanted = [tensor for tensor in (input, *states, *module.parameters()) if tensor.requires_grad]
        forward = _with_backward(forward, wanted, 1 if kind.form == "layer" else len(states))
    for _ in range(PREPARING):
        forward()
    return Call(forward, plan)


def _tensors(kind: Kind, cell: str, device: str) -> tuple[Tensor, list[Tensor]]:
    """Input and states. A cell's states come from the step before, so their gradients are wanted. A layer's states are
    a sequence's initial states."""
    steps, layers = {"layer": ((STEPS,), (1,)), "stream": ((1,), (1,)), "cell": ((), ())}[kind.form]
    carried = kind.trains and kind.form == "cell"
    input = torch.randn(*steps, BATCH, FEATURES, device=device, requires_grad=kind.trains)
    count = len(REGISTRY[cell].states)
    return input, [torch.randn(*layers, BATCH, HIDDEN, device=device, requires_grad=carried) for _ in range(count)]


def _results(input: Tensor, states: Sequence[Tensor]) -> list[tuple[int, ...]]:
    """The shapes of the stub's results: the output and one tensor of all states, or a cell's states."""
    if input.dim() == 2:
        return [tuple(state.shape) for state in states]
    return [(*input.shape[:2], HIDDEN), (len(states), *states[0].shape)]


def _with_backward(forward: Callable[[], Any], wanted: Sequence[Tensor], ends: int) -> Callable[[], Any]:
    """A call with its gradients, from its first ``ends`` results."""
    given = [torch.randn_like(end) for end in _flat(forward())[:ends]]
    return lambda: torch.autograd.grad(_flat(forward())[:ends], wanted, given)


def _flat(results: Any) -> Sequence[Any]:
    return (results,) if isinstance(results, Tensor) else results
