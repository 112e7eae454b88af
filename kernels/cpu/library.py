"""The extension, and what of it is in use: the instruction set, a cell's kernels, the pool of memory."""

import math
from collections.abc import Callable, Sequence
from functools import cache, partial

import torch
from torch import Tensor

from ...request.precision import bfloat16_products_allowed
from ...system.machine import cores
from . import _engine

TARGETS: list[str] = _engine.targets()
"""Instruction sets that this machine and this build have kernels for, best first."""
target = TARGETS[0]
"""The one in use."""

PRECISIONS = {
    "float64": torch.float64,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float32 by bfloat16": torch.float32,
}
"""What the kernels can be, and the dtype of the arrays that they read. Where bfloat16 is in the name, what is
multiplied is of it, if the instruction set `multiplies_bfloat16`. All else is float32, or float64."""

WORKING = {name: torch.float64 if name == "float64" else torch.float32 for name in PRECISIONS}
"""In what each computes."""

SMALL = 1 << 16
"""Bytes: arrays below are torch's own, others of the pool."""


def threads() -> int:
    """Threads of a call: torch's number, but no more than there are processors for this process."""
    return min(torch.get_num_threads(), cores())


@cache
def _precision_handle(precision: str, target: str) -> int | None:
    return _engine.find_precision(target, precision)


def precision_handle(precision: str) -> int | None:
    """What the instruction set in use has for all cells: products, the loop. None where it lacks the precision."""
    return _precision_handle(precision, target)


def multiplies_bfloat16() -> bool:
    """Whether the instruction set in use has a unit for products of bfloat16, and so more of float32 than one way."""
    return precision_handle("float32 by bfloat16") is not None


def precision(dtype: torch.dtype) -> str:
    """In what a layer of the dtype is computed by the instruction set in use: one of `PRECISIONS`."""
    if dtype == torch.float32 and multiplies_bfloat16() and bfloat16_products_allowed():
        return "float32 by bfloat16"
    return {torch.bfloat16: "bfloat16", torch.float64: "float64"}.get(dtype, "float32")


def reads(dtype: torch.dtype) -> bool:
    """Whether the kernels in use read arrays of the dtype; others are converted."""
    return PRECISIONS[precision(dtype)] == dtype


def pooled(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """An uninitialised tensor whose memory, where it is large, comes from the engine's pool and goes back to it."""
    count = math.prod(shape)
    if count * dtype.itemsize < SMALL:
        return torch.empty(shape, dtype=dtype)
    # Resized, not viewed: of a view autograd forbids much that is allowed for a tensor of its own.
    tensor = torch.frombuffer(_engine.memory(count * dtype.itemsize), dtype=dtype, count=count).resize_(shape)
    if torch.are_deterministic_algorithms_enabled() and torch.utils.deterministic.fill_uninitialized_memory:
        tensor.fill_(math.nan)
    return tensor


def maker(like: Tensor) -> Callable[[], Tensor]:
    """What makes uninitialised tensors like one, as `pooled` does."""
    if like.nbytes < SMALL:
        return partial(torch.empty_like, torch.empty_like(like))
    return partial(pooled, like.shape, like.dtype)
