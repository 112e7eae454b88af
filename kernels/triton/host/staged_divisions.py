"""How programs of the persistent plan divide a layer whose cell runs by stages. A program keeps its units' part of all
products' weights on the chip."""

import itertools
import math
from functools import lru_cache
from typing import NamedTuple

import torch
import triton

from . import configurations
from .configurations import CHUNK, PERSISTENT_WARPS, Division

BLOCK_B = 16
"""The rows of a tile: the 16 rows of tensor cores. Stages hold more values than a cell of one stage."""
HELD_BYTES = 96 << 10
"""The most bytes of weights of a program, in registers. Where rows are reduced, which takes those registers, weights
are in shared memory."""
CHUNK_BYTES = 8 << 10
"""The bytes that a program reads at a time of the values that programs exchange."""
MOST_PROGRAMS = 32
"""The most programs that share a row. Where more programs meet, or have more than 16 units each, some cell spills."""
WHOLE = 8
"""A divisor of the number of units. Where it does not divide that number, some cell spills."""
MOST_READ = 48
"""The most values that a stage reads. With more, as in the backward of a layer-normalised LSTM, some stages spill.
Found by compiling with Triton 3.9.0 for sm_90."""


class Depth(NamedTuple):
    """How the sum of a product is divided, for `resident`.

    * ``parts``: into how many parts the sum over a head's units is cut;
    * ``width``: a head's units, padded to whole parts;
    * ``chunks``: the pieces of the sum over all row blocks;
    * ``ahead``: how many chunks are read at a time.
    """

    parts: int
    width: int
    chunks: tuple[int, ...]
    ahead: int


class Weight(NamedTuple):
    """What a division depends on in a product: row blocks, heads, whether it is transposed."""

    blocks: int
    heads: int
    transposed: bool


def depth(weight: Weight, hidden: int, storage: torch.dtype) -> Depth:
    of_head = hidden // weight.heads
    parts = min(PERSISTENT_WARPS, max(1, triton.next_power_of_2(of_head) // 32))
    width = triton.cdiv(of_head, 16 * parts) * 16 * parts
    most = max(CHUNK, CHUNK_BYTES // (BLOCK_B * storage.itemsize))
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
    """The division of a layer, or why there is none. It is the fastest division that fits, by the model of
    `configurations`.

    Args:
        meetings: how often programs meet in a step.
        reduces: whether programs reduce rows.
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
    # A single processor, the interpreter's, runs one program after the other, and these cannot meet.
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
        launches = triton.cdiv(triton.cdiv(batch, BLOCK_B), groups) * (directions // beside)
        exchanged = BLOCK_B * hidden * storage.itemsize * sum(w.blocks if w.transposed else 1 for w in weights)
        # A tile of fewer than 16 units leaves threads without a unit.
        cycles = launches * meetings * configurations.step_cycles(BLOCK_B * max(units, 16), 0, exchanged // meetings)
        tile = {"BLOCK_B": BLOCK_B, "BLOCK_H": units, "BLOCKS": triton.next_power_of_2(blocks)}
        tile |= {"DIVISOR": math.gcd(hidden, configurations.THREAD_BYTES // storage.itemsize)}
        tile |= {"SHARED": reduces, "num_warps": PERSISTENT_WARPS}
        found.append(Division(tile, blocks, groups, beside, cycles))
    if not found:
        return split or f"its weights do not fit in registers, divided among {MOST_PROGRAMS} programs of 16 units"
    return min(found, key=lambda each: each.cycles)
