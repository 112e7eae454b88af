"""The extension, and which part of it is in use: the instruction set, a cell's kernels, the pool of memory."""

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
"""The instruction set in use."""

PRECISIONS = {
    "float64": torch.float64,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float32 by bfloat16": torch.float32,
}
"""The kernels' precisions, and the dtype of the arrays that the kernels read. A name with bfloat16 means that products
multiply bfloat16, if the instruction set `multiplies_bfloat16`. All other arithmetic is in float32, or float64."""

WORKING = {name: torch.float64 if name == "float64" else torch.float32 for name in PRECISIONS}
"""The working dtype of each precision."""

SMALL = 1 << 16
"""Bytes: torch allocates smaller arrays, the pool larger ones."""


def threads() -> int:
    """The threads of a call: torch's number, but at most the processors that this process may use."""
    return min(torch.get_num_threads(), cores())


@cache
def _precision_handle(precision: str, target: str) -> int | None:
    return _engine.find_precision(target, precision)


def precision_handle(precision: str) -> int | None:
    """A handle for the functions that the instruction set in use has for all cells: products and the loop. None if it
    lacks the precision."""
    return _precision_handle(precision, target)


def multiplies_bfloat16() -> bool:
    """Whether the instruction set in use has a unit for products of bfloat16, and so two ways to compute in float32."""
    return precision_handle("float32 by bfloat16") is not None


def precision(dtype: torch.dtype) -> str:
    """The precision in which the instruction set in use computes a layer of the dtype: one of `PRECISIONS`."""
    if dtype == torch.float32 and multiplies_bfloat16() and bfloat16_products_allowed():
        return "float32 by bfloat16"
    return {torch.bfloat16: "bfloat16", torch.float64: "float64"}.get(dtype, "float32")


def reads(dtype: torch.dtype) -> bool:
    """Whether the kernels in use read arrays of the dtype. Other arrays must be converted."""
    return PRECISIONS[precision(dtype)] == dtype


def pooled(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """An uninitialised tensor. If it is large, its memory comes from the engine's pool and goes back to the pool."""
    count = math.prod(shape)
    if count * dtype.itemsize < SMALL:
        return torch.empty(shape, dtype=dtype)
    # Resized instead of viewed: autograd forbids some operations on a view that it allows on other tensors.
    tensor = torch.frombuffer(_engine.memory(count * dtype.itemsize), dtype=dtype, count=count).resize_(shape)
    if torch.are_deterministic_algorithms_enabled() and torch.utils.deterministic.fill_uninitialized_memory:
        tensor.fill_(math.nan)
    return tensor


def maker(like: Tensor) -> Callable[[], Tensor]:
    """A function that makes uninitialised tensors like ``like``, as `pooled` does."""
    if like.nbytes < SMALL:
        return partial(torch.empty_like, torch.empty_like(like))
    return partial(pooled, like.shape, like.dtype)
