"""The kernels' launch configurations, all of them, with why."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import triton

# A gates kernel is bound by memory and, at the sizes of a step, by latency: many small programs, so that a step of
# 64 × 1024 fills a large GPU's 132 multiprocessors; four elements a thread, so that bfloat16 is read 8 bytes at a time,
# two of float64, whose registers are pairs: with four the peephole LSTM spills.
WARPS = 4
TILE_BYTES = 2048
# Rows of a tile lie apart in memory; 128 units are whole sectors in any dtype, and leave little over at odd sizes.
UNITS = 128

# Whether backward computes the cells' values once more from gates_x, by one large product over many steps, in place
# of keeping them: forward then keeps the states alone. Read at each call of an engine; see `recomputing`.
recompute = False
# The results of that product are held for as many steps at a time as fit in so many bytes.
RECOMPUTE_BYTES = 64 << 20

# "ieee", "tf32" or "tf32x3" for float32 products, whatever torch's switches say; see `precision`.
precision: str | None = None

# Up to so many sequences a fused step is one tile of the batch: it reads each weight once, as a product by itself does.
FUSED_ROWS = 16


def gates(batch: int, hidden: int, directions: int, work: torch.dtype) -> dict[str, Any]:
    """Of a gates kernel: the grid, and its tile of batch rows and units, which T and B do not change."""
    units = min(UNITS, triton.next_power_of_2(hidden))
    rows = TILE_BYTES // work.itemsize // units
    return _tiled(batch, hidden, directions, rows, units)


def fused_step(batch: int, hidden: int, directions: int, storage: torch.dtype, precision: str) -> dict[str, Any]:
    """Of a gates kernel that makes its product by itself: few units to a program, so that a step is many programs and
    all of a GPU's multiprocessors read weights.

    Tensor cores take 16 rows. One row, and up to eight where the precision has no tensor cores, are summed element by
    element instead: what would be 16 rows of mostly zeros, by way of shared memory, is then the rows that there are.
    """
    tensor_cores = storage.itemsize == 2 or precision != "ieee"
    if batch == 1:
        rows, units, width = 1, 8, 128
    elif batch <= 8 and not tensor_cores:
        rows, units, width = 8, 4, 64
    else:
        rows, units, width = 16, 8, 256 // storage.itemsize
    if storage == torch.float64:
        width //= 2
    tile = _tiled(batch, hidden, directions, rows, units)
    return {**tile, "WIDTH": width, "PIECES": triton.cdiv(hidden, width), "DOT": rows == 16}


def _tiled(batch: int, hidden: int, directions: int, rows: int, units: int) -> dict[str, Any]:
    grid = triton.cdiv(batch, rows), triton.cdiv(hidden, units), directions
    return {"grid": grid, "num_warps": WARPS, "ROWS": rows, "UNITS": units}


@contextmanager
def recomputing(on: bool = True) -> Iterator[None]:
    """Inside, forward keeps no more than the states, and backward computes the rest once more."""
    global recompute
    before, recompute = recompute, on
    try:
        yield
    finally:
        recompute = before


# How often a program of the persistent plan looks whether the others have arrived before it gives up: some ten seconds.
PATIENCE = 1 << 24


def persistent(
    hidden: int,
    batch: int,
    directions: int,
    recurrent: int,
    planes: int,
    storage: torch.dtype,
    precision: str,
    processors: int,
    shared_memory: int,
) -> dict[str, Any] | str:
    """How programs of the persistent plan divide a layer, or why they cannot."""
    units = max(16, triton.next_power_of_2(hidden))
    tile = {"ROWS": 16, "UNITS": units, "CHUNKS": (units,) * planes, "WIDTH": units, "SPLIT": 1, "ALONE": True}
    return {"tile": {**tile, "num_warps": 8}, "blocks": 1, "side_by_side": 1 << 30, "options": {"num_stages": 1}}
