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


def gates(batch: int, hidden: int, work: torch.dtype) -> dict[str, Any]:
    """Of a gates kernel: the grid, and its tile of batch rows and units, which T and B do not change."""
    # By itself Triton asks of a size no more than whether 16 divides it, and reads single elements where not: 100 units
    # took four times the loads. More elements a thread than can be read at once are in nobody's way but the compiler's,
    # which gives each tensor a layout of its own and converts by way of shared memory, a barrier each.
    width = math.gcd(hidden, THREAD_BYTES // work.itemsize)
    units = min(UNITS, triton.next_power_of_2(hidden))
    rows = 32 * WARPS * width // units
    grid = triton.cdiv(batch, rows), triton.cdiv(hidden, units)
    return {"grid": grid, "num_warps": WARPS, **_registers(), "ROWS": rows, "UNITS": units, "DIVISOR": width}


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
