"""How programs of the persistent plan divide a layer of a cell that runs by stages, of all of whose products each keeps
its units' part on the chip."""

import itertools
import math
from functools import lru_cache
from typing import NamedTuple

import torch
import triton

from . import configurations
from .configurations import CHUNK, PERSISTENT_WARPS, Division

ROWS = 16
"""Of the batch in a tile: those of tensor cores. Stages have more values at hand than a cell of one has."""
HELD_BYTES = 96 << 10
"""Of weights, in registers; where rows are reduced, which takes those, in shared memory."""
CHUNK_BYTES = 8 << 10
"""That a program reads at a time of what the others exchange."""
MOST_PROGRAMS = 32
"""That share a row: where more meet, or have more than 16 units each, some cell spills."""
WHOLE = 8
"""Of the number of units a divisor: of others some cell spills."""
MOST_READ = 48
"""Values that a stage may read: with more, those of a layer-normalised LSTM's backward, some spill. Found by compiling
with Triton 3.9.0 for sm_90."""


class Depth(NamedTuple):
    """Of a product: into how many parts, `resident` has it, the sum over a head's units is cut, their number padded to
    whole parts, and the chunks of the sum over all row blocks that are summed over."""

    parts: int
    width: int
    chunks: tuple[int, ...]
    ahead: int


class Weight(NamedTuple):
    """What the division asks of a product: row blocks, heads, whether it is transposed."""

    blocks: int
    heads: int
    transposed: bool


def depth(weight: Weight, hidden: int, storage: torch.dtype) -> Depth:
    of_head = hidden // weight.heads
    parts = min(PERSISTENT_WARPS, max(1, triton.next_power_of_2(of_head) // 32))
    width = triton.cdiv(of_head, 16 * parts) * 16 * parts
    most = max(CHUNK, CHUNK_BYTES // (ROWS * storage.itemsize))
    chunks = configurations.powers_of_two(width * (weight.blocks if weight.transposed else 1), most)
    return Depth(parts, width, chunks, 1)


@lru_cache(1024)
def division(
    hidden: int,
    batch: int,
    directions: int,
    weights: tuple[Weight, ...],
    meetings: int,
    reduces: bool,
    read: int,
    storage: torch.dtype,
    precision: str,
    processors: int,
    shared_memory: int,
) -> Division | str:
    """The division, of those that fit the one with the least time by the model of `configurations`, or why there is
    none.

    Args:
        meetings: how often programs meet in a step.
        reduces: whether they reduce rows.
        read: how many values a stage reads at most.
    """
    if not weights:
        return "no product of its steps reads what other programs compute"
    if storage == torch.float32 and precision == "ieee" and processors > 1:
        return "exact float32 products of several stages do not fit in its registers"
    if read > MOST_READ and processors > 1:
        return f"a stage reads {read} values, for more than {MOST_READ} there are too few registers"
    if hidden % WHOLE and processors > 1:
        return f"{hidden} units, no multiple of {WHOLE}, are read in short pieces, whose addresses take registers"
    item = configurations.bytes_of(storage, precision)
    found = []
    split = "a program's units would be of two heads"
    # One processor runs one program after the other, which cannot meet.
    sizes = (max(16, triton.next_power_of_2(hidden)),) if processors == 1 else (16, 8)
    for units, beside in itertools.product(sizes, sorted({1, directions})):
        if any(weight.heads > 1 and hidden // weight.heads % units for weight in weights):
            continue
        split = ""
        blocks = triton.cdiv(hidden, units)
        groups = processors // (blocks * beside) if processors > 1 else 1 << 16
        held = sum(weight.blocks * units * depth(weight, hidden, storage).width * item for weight in weights)
        if processors > 1 and (not groups or held > HELD_BYTES or blocks > MOST_PROGRAMS):
            continue
        launches = triton.cdiv(triton.cdiv(batch, ROWS), groups) * (directions // beside)
        exchanged = ROWS * hidden * storage.itemsize * sum(w.blocks if w.transposed else 1 for w in weights)
        # A tile of fewer than 16 units leaves threads without one.
        cycles = launches * meetings * configurations.step_cycles(ROWS * max(units, 16), 0, exchanged // meetings)
        tile = {"ROWS": ROWS, "UNITS": units, "BLOCKS": triton.next_power_of_2(blocks)}
        tile |= {"DIVISOR": math.gcd(hidden, configurations.THREAD_BYTES // storage.itemsize)}
        tile |= {"SHARED": reduces, "num_warps": PERSISTENT_WARPS}
        found.append(Division(tile, blocks, groups, beside, cycles))
    if not found:
        return split or f"its weights do not fit in registers, divided among {MOST_PROGRAMS} programs of 16 units"
    return min(found, key=lambda each: each.cycles)
