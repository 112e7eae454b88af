"""The table of backends, with the functions that the choice of a backend calls.

A backend is torch's own operators (`torch_ops`), a loop over the cell's step (`reference`), or an engine of kernels.
"""

from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import NamedTuple, cast

from ..kernels import cpu, triton
from ..kernels.cpu import refusals as cpu_refusals
from ..kernels.triton import refusals as triton_refusals
from ..kernels.triton.plans import plan
from ..request.call import Call
from . import torch_ops
from .engine import Engine, PreparingEngine, StackingEngine


class Backend(NamedTuple):
    """A backend as `seqcells.call.choose` sees it."""

    description: str
    engine: str | None
    """The name of the module that `seqcells.call.execute` runs; None if the backend takes whole stacks of layers."""
    why_not_available: Callable[[], str | None]
    """Returns why the backend cannot be used on this machine, or None."""
    why_not: Callable[[Call], str | None]
    """Returns why the backend cannot run a call, or None."""
    planned: Callable[[Call], str] | None = None
    """Returns which plan the backend takes for a call and why; "" if there is no choice. None: it has no plans."""
    uses_settings: bool = False
    """Whether `seqcells.settings` change how the backend runs."""


def _runs_every_call(call: Call) -> None:
    return None


def _always_available() -> None:
    return None


BACKENDS: dict[str, Backend] = {
    "reference": Backend(
        "a loop of the cell's step in torch: any device, dtype and transform", None, _always_available, _runs_every_call
    ),
    "torch": Backend(
        "torch's own lstm, gru and rnn operators (cuDNN, oneDNN), for plain calls",
        None,
        _always_available,
        torch_ops.why_not,
    ),
    "cpu": Backend(
        "C++ kernels, for the machine's instruction set",
        "seqcells.kernels.cpu.engine",
        cpu.why_not_available,
        cpu_refusals.why_not,
    ),
    "triton": Backend(
        "Triton kernels, the plan chosen by size",
        "seqcells.kernels.triton.engine",
        triton.why_not_available,
        triton_refusals.why_not,
        plan.in_words,
        uses_settings=True,
    ),
    "triton-stepwise": Backend(
        "Triton: a GEMM and a fused kernel per step",
        "seqcells.kernels.triton.plans.stepwise",
        triton.why_not_available,
        triton_refusals.why_not,
        uses_settings=True,
    ),
    "triton-persistent": Backend(
        "Triton: one launch for all steps, of several layers where they fit",
        "seqcells.kernels.triton.persistent_engine",
        triton.why_not_available,
        triton_refusals.why_not_persistent,
        triton_refusals.persistently_in_words,
        uses_settings=True,
    ),
    "cuda-cluster": Backend(
        "CUDA C++: one launch for all steps, by thread-block clusters",
        "seqcells.kernels.triton.plans.cluster",
        triton.why_not_clusters_available,
        triton_refusals.why_not_clusters,
        triton_refusals.clusters_in_words,
    ),
}
NAMES = ("auto", *BACKENDS)


def check_name(backend: str) -> str:
    """Return ``backend`` if it is the name of a backend or ``"auto"``.

    Raises:
        ValueError: there is no such backend.
    """
    if backend not in NAMES:
        raise ValueError(f"unknown backend {backend!r}: choose one of {', '.join(map(repr, NAMES))}")
    return backend


def why_not_for(call: Call, backend: str) -> str | None:
    """Why a backend cannot run a call on this machine, or None."""
    return BACKENDS[backend].why_not_available() or BACKENDS[backend].why_not(call)


@cache
def engine_of(backend: str) -> Engine:
    """The module that runs a backend's kernels, imported at the first call.

    Raises:
        ValueError: there is no such backend.
        RuntimeError: the backend has no kernels of its own.
    """
    path = BACKENDS[check_name(backend)].engine
    if path is None:
        raise RuntimeError(f"backend {backend!r} has no engine for seqcells::recurrence")
    return cast(Engine, import_module(path))


@cache
def preparing_engine(backend: str) -> PreparingEngine | None:
    """The engine of a backend if it can prepare calls, else None. The answer is kept: the check is slow."""
    engine = engine_of(backend) if BACKENDS[backend].engine else None
    return engine if isinstance(engine, PreparingEngine) else None


@cache
def stacking_engine(backend: str) -> StackingEngine | None:
    """The engine of a backend if it may run several layers together, else None. The answer is kept, too."""
    engine = engine_of(backend) if BACKENDS[backend].engine else None
    return engine if isinstance(engine, StackingEngine) else None
