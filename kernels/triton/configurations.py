"""The kernels' launch configurations, all of them, with why."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import triton

from . import interpreted

# A gates kernel is bound by memory and, at the sizes of a step, by latency: many small programs, so that a step of
# 64 × 1024 fills a large GPU's 132 multiprocessors; four elements a thread, so that bfloat16 is read 8 bytes at a time,
# two of float64, whose registers are pairs: with four the peephole LSTM spills.
WARPS = 4
THREAD_BYTES = 16
# Told of no limit, NVIDIA's assembler spills a few bytes where one more program then fits a multiprocessor. At the
# sizes above there is but one; at larger ones 128 registers, which few cells pass, leave room for 16 warps with 40 kB
# of reads in flight, where some 15 kB keep an H100's memory busy. Reckoned, not measured.
REGISTERS = 255
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
    # By itself Triton asks of a size no more than whether 16 divides it, and reads single elements where not: 100 units
    # took four times the loads. More elements a thread than can be read at once are in nobody's way but the compiler's,
    # which gives each tensor a layout of its own and converts by way of shared memory, a barrier each.
    width = math.gcd(hidden, THREAD_BYTES // work.itemsize)
    units = min(UNITS, triton.next_power_of_2(hidden))
    return _tiled(batch, hidden, directions, 32 * WARPS * width // units, units, width)


def fused_step(batch: int, hidden: int, directions: int, storage: torch.dtype, precision: str) -> dict[str, Any]:
    """Of a gates kernel that makes its product by itself: few units to a program, so that a step is many programs and
    all of a GPU's multiprocessors read weights.

    Tensor cores take 16 rows. One row, and up to eight where the precision has no tensor cores, are summed element by
    element instead: what would be 16 rows of mostly zeros, by way of shared memory, is then the rows that there are.
    So are all of float64, with which the products' operands and sums together need more registers than there are.
    """
    tensor_cores = storage.itemsize == 2 or (storage == torch.float32 and precision != "ieee")
    summed = max(storage.itemsize, 4)
    if batch == 1:
        rows, units, width = 1, 8, 512 // summed
    elif storage == torch.float64 or (batch <= 8 and not tensor_cores):
        rows, units, width = 8, 4, 256 // summed
    else:
        rows, units, width = 16, 8, 128 // storage.itemsize if tensor_cores else 16
    # Weights are read as wide as may be; of the little that is left to do for a tile, each thread has one element.
    aligned = math.gcd(hidden, THREAD_BYTES // storage.itemsize)
    tile = _tiled(batch, hidden, directions, rows, units, 1)
    return {**tile, "ALIGNED": aligned, "WIDTH": width, "DOT": rows == 16}


def _tiled(batch: int, hidden: int, directions: int, rows: int, units: int, divisor: int) -> dict[str, Any]:
    grid = triton.cdiv(batch, rows), triton.cdiv(hidden, units), directions
    return {"grid": grid, "num_warps": WARPS, **_registers(), "ROWS": rows, "UNITS": units, "DIVISOR": divisor}


def _registers() -> dict[str, int]:
    """The compiler's option, which it has for NVIDIA alone."""
    nvidia = not interpreted() and triton.runtime.driver.active.get_current_target().backend == "cuda"
    return {"maxnreg": REGISTERS} if nvidia else {}


@contextmanager
def recomputing(on: bool = True) -> Iterator[None]:
    """Inside, forward keeps no more than the states, and backward computes the rest once more."""
    global recompute
    before, recompute = recompute, on
    try:
        yield
    finally:
        recompute = before
