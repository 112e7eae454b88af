"""Which backend runs a call, and why.

A backend named by the caller runs or raises; ``"auto"`` takes the first that can, and can say what spoke
against the others. There is one knob: the string ``backend``.
"""

from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import NamedTuple

import torch

from . import delegate
from .cells import REGISTRY, Cell
from .kernels import triton


class Call(NamedTuple):
    """What a choice depends on."""

    cell: type[Cell]
    form: str
    """``"layers"`` (input to output), ``"recurrence"`` (gates_x given) or ``"step"`` (a cell module)."""
    device: torch.device
    dtype: torch.dtype
    options: tuple[str, ...] = ()
    """Which of ``lengths``, ``reset``, ``packed`` and ``projection`` the call uses."""


class Choice(NamedTuple):
    """A backend, and the reason for it."""

    backend: str
    reason: str


class Backend(NamedTuple):
    """What `choose` knows of a backend."""

    description: str
    engine: str | None
    """The module that `seqcells.ops` runs, or None where the backend takes whole layers by itself."""
    unavailable: Callable[[], str | None]
    """Why it does not exist here, or None."""
    refuses: Callable[[Call], str | None]
    """Why it cannot run a call, or None."""


def _refuses_nothing(call: Call) -> None:
    return None


def _there() -> None:
    return None


def _to_come() -> str:
    return "this version of seqcells does not have it yet"


BACKENDS: dict[str, Backend] = {
    "reference": Backend(
        "a loop of the cell's step in torch: any device, dtype and transform", None, _there, _refuses_nothing
    ),
    "torch": Backend(
        "torch's own lstm, gru and rnn operators (cuDNN, oneDNN), for plain calls", None, _there, delegate.refuses
    ),
    "cpu": Backend("C++ kernels", "seqcells.kernels.cpu", _to_come, _refuses_nothing),
    "triton": Backend(
        "Triton kernels, the plan chosen by size",
        "seqcells.kernels.triton.stepwise",
        triton.unavailable,
        triton.refuses,
    ),
    "triton-stepwise": Backend(
        "Triton: a GEMM and a fused kernel per step",
        "seqcells.kernels.triton.stepwise",
        triton.unavailable,
        triton.refuses,
    ),
    "triton-persistent": Backend(
        "Triton: one launch for all steps", "seqcells.kernels.triton", _to_come, _refuses_nothing
    ),
}
NAMES = ("auto", *BACKENDS)


def check_name(backend: str) -> str:
    """``backend`` itself, if it names one; ValueError otherwise."""
    if backend not in NAMES:
        raise ValueError(f"unknown backend {backend!r}: choose one of {', '.join(map(repr, NAMES))}")
    return backend


def choose(call: Call, backend: str = "auto") -> Choice:
    """The backend that runs ``call``.

    Raises:
        ValueError: ``backend`` names none.
        RuntimeError: the named backend does not exist here or cannot do what the call asks.
    """
    check_name(backend)
    if backend == "auto":
        return _automatic(call)
    why_not = BACKENDS[backend].unavailable() or BACKENDS[backend].refuses(call)
    if why_not:
        raise RuntimeError(f"backend={backend!r} cannot run this call: {why_not}")
    return Choice(backend, "asked for by name")


def _automatic(call: Call) -> Choice:
    if torch.compiler.is_compiling():
        return Choice(
            "reference", "torch.compile: one operator in the graph, where torch's own would be unrolled over time"
        )
    if _in_transform():
        return Choice(
            "reference", "inside a torch.func transform or forward-mode AD, which fused kernels do not follow"
        )
    why_not = delegate.refuses(call)
    if not why_not:
        return Choice("torch", "a plain call: torch's own operator")
    if call.device.type == "cuda" and not (triton.unavailable() or triton.refuses(call)):
        return Choice("triton", f"not torch's own operator: {why_not}")
    return Choice("reference", f"not torch's own operator: {why_not}")


def _in_transform() -> bool:
    return torch._C._functorch.peek_interpreter_stack() is not None or torch.autograd.forward_ad._current_level >= 0


def cell(name: str) -> type[Cell]:
    """The cell registered under ``name``."""
    if name not in REGISTRY:
        raise ValueError(f"unknown cell {name!r}: the registry has {', '.join(REGISTRY)}")
    return REGISTRY[name]


def engine(backend: str) -> ModuleType:
    """The module that runs a backend's kernels, imported when first launched."""
    path = BACKENDS[check_name(backend)].engine
    if path is None:
        raise RuntimeError(f"backend {backend!r} has no engine for seqcells::recurrence")
    return import_module(path)
