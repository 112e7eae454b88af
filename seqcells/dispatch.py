"""Which backend runs a call, and why.

A backend named by the caller runs or raises; ``"auto"`` takes one that can, by estimated seconds where torch's operator
and kernels of ours both can (`seqcells.estimates`), and says why. There is one knob: the string ``backend``.
"""

from collections.abc import Callable, Iterable
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor
from torch._C import _get_tracing_state, _len_torch_dispatch_stack, _len_torch_function_stack
from torch._C._functorch import peek_interpreter_stack
from torch.autograd import forward_ad

from . import delegate, estimates, trial
from .call import Call, Choice
from .cells import Cell
from .kernels import cpu, triton
from .kernels.triton import plan
from .recurrence import Recurrence
from .settings import current_settings
from .table import KERNELS
from .transformed import named


class Backend(NamedTuple):
    """What `choose` knows of a backend."""

    description: str
    engine: str | None
    """The module that `seqcells.execute` runs, or None where the backend takes whole layers by itself."""
    unavailable: Callable[[], str | None]
    """Why it does not exist here, or None."""
    refuses: Callable[[Call], str | None]
    """Why it cannot run a call, or None."""
    planned: Callable[[Call], str] | None = None
    """How it runs a call and why so, where it has several ways for that one; else nothing."""
    obeys: bool = False
    """Whether `seqcells.settings` change how it runs."""


def _refuses_nothing(call: Call) -> None:
    return None


def _there() -> None:
    return None


BACKENDS: dict[str, Backend] = {
    "reference": Backend(
        "a loop of the cell's step in torch: any device, dtype and transform", None, _there, _refuses_nothing
    ),
    "torch": Backend(
        "torch's own lstm, gru and rnn operators (cuDNN, oneDNN), for plain calls", None, _there, delegate.refuses
    ),
    "cpu": Backend(
        "C++ kernels, for the machine's instruction set", "seqcells.kernels.cpu.engine", cpu.unavailable, cpu.refuses
    ),
    "triton": Backend(
        "Triton kernels, the plan chosen by size",
        "seqcells.kernels.triton.engine",
        triton.unavailable,
        triton.refuses,
        plan.in_words,
        obeys=True,
    ),
    "triton-stepwise": Backend(
        "Triton: a GEMM and a fused kernel per step",
        "seqcells.kernels.triton.stepwise",
        triton.unavailable,
        triton.refuses,
        obeys=True,
    ),
    "triton-persistent": Backend(
        "Triton: one launch for all steps, of several layers where they fit",
        "seqcells.kernels.triton.by_name",
        triton.unavailable,
        triton.refuses_persistently,
        triton.persistently_in_words,
        obeys=True,
    ),
}
NAMES = ("auto", *BACKENDS)
WITHOUT_KERNELS = "torch's own operator for a plain call that it does not fail for, else the reference"
"""What ``"auto"`` takes on all other types of devices."""
_WHERE_TORCHS_RUN = ("cuda", "meta")
"""The types of devices where torch's own operators run whatever they do not refuse."""


def check_name(backend: str) -> str:
    """``backend`` itself, if it names one; ValueError otherwise."""
    if backend not in NAMES:
        raise ValueError(f"unknown backend {backend!r}: choose one of {', '.join(map(repr, NAMES))}")
    return backend


def why_not_for(call: Call, backend: str) -> str | None:
    """Why a backend cannot run a call here, or None."""
    return BACKENDS[backend].unavailable() or BACKENDS[backend].refuses(call)


def choose(call: Call, backend: str = "auto") -> Choice:
    """The backend that runs ``call``.

    Raises:
        ValueError: ``backend`` names none.
        RuntimeError: the named backend does not exist here or cannot do what the call asks.
    """
    check_name(backend)
    if "expanded" in call.options:
        return _expanded(call, backend)
    if backend == "auto":
        return _automatic(call)
    why_not = why_not_for(call, backend)
    if not why_not and BACKENDS[backend].engine and not torch.compiler.is_compiling() and in_transform():
        why_not = "kernels do not follow torch.func transforms and forward-mode AD"
    if why_not:
        raise RuntimeError(f"backend={backend!r} cannot run this call: {why_not}")
    return Choice(backend, "asked for by name")


def explain(call: Call, backend: str = "auto") -> Choice:
    """What `choose` says, with the plan that the backend has for the call, and the settings that are not the defaults;
    the same errors."""
    choice = choose(call, backend)
    chosen, words = BACKENDS[choice.backend], " ".join(current_settings().words())
    how = chosen.planned(call) if chosen.planned else ""
    under = f"settings: {words}" if chosen.obeys and words else ""
    return Choice(choice.backend, "; ".join(filter(None, (choice.reason, how, under))))


def _expanded(call: Call, backend: str) -> Choice:
    """torch's operator, the only one whose gradients of samples torch.nn.utils knows; RuntimeError if it cannot run."""
    why_not = delegate.refuses(call)
    if call.form == "step":
        why_not = "torch has none for cells"
    elif backend not in ("auto", "torch"):
        why_not = f"there are none for backend={backend!r}"
    if why_not:
        instead = "take torch.func.vmap of torch.func.grad, which all of seqcells follows"
        raise RuntimeError(f"expanded weights cannot be used for this call: {why_not}; {instead}")
    return Choice(
        "torch", "expanded weights, as for gradients of samples: torch.nn.utils has them for torch's operator"
    )


def _automatic(call: Call) -> Choice:
    compiling = torch.compiler.is_compiling()
    if not compiling and in_transform():
        return Choice("reference", "inside a torch.func transform or forward-mode AD, which no kernels follow")
    kernels, why_no_kernels = _kernels_for(call)
    best = "reference" if why_no_kernels else kernels
    note = f"; no kernels of ours: {why_no_kernels}" if why_no_kernels else ""
    if compiling:
        return Choice(best, "torch.compile: one operator in the graph, torch's own would be unrolled over time" + note)
    why_not_torch = delegate.refuses(call)
    if why_not_torch:
        return Choice(best, f"not torch's own operator: {why_not_torch}{note}")
    if call.device.type not in _WHERE_TORCHS_RUN:
        why_not_torch = trial.failure(call)
        if why_not_torch:
            return Choice(best, f"torch's own operator fails here: {why_not_torch}{note}")
    if not why_no_kernels:
        if best == "cpu" and torch.is_autocast_enabled("cpu"):
            leader = Choice("torch", "under autocast it rounds where torch.nn does")
        else:
            leader = estimates.leader(call)
        if leader.backend == best:
            return leader
        note = f"; {leader.reason}"
    return Choice("torch", f"a plain call: torch's own operator{note}")


def _kernels_for(call: Call) -> tuple[str | None, str | None]:
    """The backend of our kernels for a call's device, if there is one, and why it cannot run the call, or None."""
    kernels = KERNELS.get(call.device.type)
    return kernels, why_not_for(call, kernels) if kernels else f"there are none for {call.device.type}"


def in_transform() -> bool:
    """Whether inside a torch.func transform or forward-mode AD."""
    return peek_interpreter_stack() is not None or forward_ad._current_level >= 0


def are_batched(tensors: Iterable[Tensor]) -> bool:
    """Whether there are many gradients in one, of ``is_grads_batched``, which no kernels can read."""
    return in_transform() or any(map(torch._C._functorch.is_legacy_batchedtensor, tensors))


def is_watched() -> bool:
    """Whether somebody transforms, traces or watches what runs."""
    return bool(in_transform() or _len_torch_dispatch_stack() or _len_torch_function_stack() or _get_tracing_state())


def is_observed(tensors: Iterable[Tensor]) -> bool:
    """Whether what runs `is_watched`, or one of the tensors is not what lies in memory (a FakeTensor, say, or one whose
    negative lies there): then it must be operators, and nothing below them."""
    return is_watched() or any(type(tensor) not in _PLAIN or tensor.is_neg() for tensor in tensors)


_PLAIN = (Tensor, torch.nn.Parameter)


def is_differentiated(tensors: Iterable[Tensor]) -> bool:
    """Whether autograd will ask for gradients of what is made of them: inside a Function it cannot be seen that grad
    mode is off."""
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def cell(name: str) -> type[Cell]:
    """The cell of that name, as a graph has it: see `seqcells.transformed`."""
    return named(name)


def backend_for(q: Recurrence, asked: str) -> str:
    """The backend of an operator in a graph: as asked for, by ``"auto"`` the kernels for the tensors' device.

    Raises:
        RuntimeError: the named backend does not exist here, cannot do this, or has no operator.
    """
    used = {"projection": q.weights[0].hr is not None, "keep": bool(q.kept)}
    options = tuple(name for name, uses in used.items() if uses)
    call = Call(q.cell, "recurrence", q.outside.device, q.outside.dtype, options, hidden=q.hidden)
    if asked == "auto":
        kernels, why_not = _kernels_for(call)
        return "reference" if why_not else kernels
    why_not = why_not_for(call, check_name(asked))
    if why_not or (BACKENDS[asked].engine is None and asked != "reference"):
        raise RuntimeError(f"backend={asked!r} cannot run this call: {why_not or 'it has no operator'}")
    return asked


@cache
def engine(backend: str) -> ModuleType:
    """The module that runs a backend's kernels, imported when first launched."""
    path = BACKENDS[check_name(backend)].engine
    if path is None:
        raise RuntimeError(f"backend {backend!r} has no engine for seqcells::recurrence")
    return import_module(path)
