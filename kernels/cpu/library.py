"""The extension, and what of it is in use: the instruction set, a cell's kernels, the pool of memory."""

import math
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from . import _engine

TARGETS: list[str] = _engine.targets()
"""Instruction sets that this machine and this build have kernels for, best first."""
target = TARGETS[0]
"""The one in use."""

DTYPES = {torch.float32: "float32", torch.float64: "float64"}


class Kernels(NamedTuple):
    """A cell's row in the tables."""

    handle: int
    saves: int
    """Values that forward keeps of each unit."""
    shared: tuple[int, ...]
    """For each recurrent gate the gate whose gradient is the same, or -1."""
    path: tuple[int, ...]
    """Whether backward reads a state's values after each step."""


@cache
def _kernels(cell_name: str, dtype: torch.dtype, target: str) -> Kernels | None:
    found = _engine.find(target, DTYPES[dtype], cell_name)
    return None if found is None else Kernels(*found)


def kernels(cell_name: str, dtype: torch.dtype = torch.float32) -> Kernels | None:
    """The kernels in use for a cell, or None where the tables lack it."""
    return _kernels(cell_name, dtype, target)


def pooled(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """An uninitialised tensor whose memory, where it is large, comes from the engine's pool and goes back to it."""
    count = math.prod(shape)
    if count * dtype.itemsize < 1 << 16:
        return torch.empty(shape, dtype=dtype)
    tensor = torch.frombuffer(_engine.memory(count * dtype.itemsize), dtype=dtype, count=count).view(shape)
    if torch.are_deterministic_algorithms_enabled() and torch.utils.deterministic.fill_uninitialized_memory:
        tensor.fill_(math.nan)
    return tensor
