"""Which backends there are, and what the choice of one asks them.

A backend is torch's own operators (`torch_ops`), the loop of equations (`reference`), or an engine of kernels.
"""

from collections.abc import Callable
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import NamedTuple

from ..kernels import cpu, triton
from ..kernels.cpu import refusals as cpu_refusals
from ..kernels.triton import refusals as triton_refusals
from ..kernels.triton.plans import plan
from ..request.call import Call
from . import torch_ops


class Backend(NamedTuple):
    """What `seqcells.call.choose` knows of a backend."""

    description: str
    engine: str | None
    """The module that `seqcells.call.execute` runs, or None where the backend takes whole layers by itself."""
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
        "torch's own lstm, gru and rnn operators (cuDNN, oneDNN), for plain calls", None, _there, torch_ops.refuses
    ),
    "cpu": Backend(
        "C++ kernels, for the machine's instruction set",
        "seqcells.kernels.cpu.engine",
        cpu.unavailable,
        cpu_refusals.refuses,
    ),
    "triton": Backend(
        "Triton kernels, the plan chosen by size",
        "seqcells.kernels.triton.engine",
        triton.unavailable,
        triton_refusals.refuses,
        plan.in_words,
        obeys=True,
    ),
    "triton-stepwise": Backend(
        "Triton: a GEMM and a fused kernel per step",
        "seqcells.kernels.triton.plans.stepwise",
        triton.unavailable,
        triton_refusals.refuses,
        obeys=True,
    ),
    "triton-persistent": Backend(
        "Triton: one launch for all steps, of several layers where they fit",
        "seqcells.kernels.triton.by_name",
        triton.unavailable,
        triton_refusals.refuses_persistently,
        triton_refusals.persistently_in_words,
        obeys=True,
    ),
    "cuda-cluster": Backend(
        "CUDA C++: one launch for all steps, by thread-block clusters",
        "seqcells.kernels.triton.plans.cluster",
        triton.unavailable,
        triton_refusals.refuses_by_clusters,
        triton_refusals.clusters_in_words,
    ),
}
NAMES = ("auto", *BACKENDS)


def check_name(backend: str) -> str:
    """``backend`` itself, if it names one; ValueError otherwise."""
    if backend not in NAMES:
        raise ValueError(f"unknown backend {backend!r}: choose one of {', '.join(map(repr, NAMES))}")
    return backend


def why_not_for(call: Call, backend: str) -> str | None:
    """Why a backend cannot run a call here, or None."""
    return BACKENDS[backend].unavailable() or BACKENDS[backend].refuses(call)


@cache
def engine_of(backend: str) -> ModuleType:
    """The module that runs a backend's kernels, imported when first launched."""
    path = BACKENDS[check_name(backend)].engine
    if path is None:
        raise RuntimeError(f"backend {backend!r} has no engine for seqcells::recurrence")
    return import_module(path)
