"""The kernels of cells that run by stages: one launch runs one stage of a step, forward or backward.

A program has a tile of rows and units in one direction; if a stage has reductions, its tile has all units. The launch
of a step's last stage also runs stage 0 of the next step, the part before its first product. So carried values pass in
registers. `begin` runs stage 0 of the first step.

States, and in backward their gradients, are tensors (D, B, H) each. All arithmetic is in the dtype ``work``.
"""

import triton
import triton.language as tl

from . import staged_access
from .tiles import is_boundary, is_valid, load_each, store_each, tile_of_step, time

VARYING = ["start", "stop", "batch", "size"]  # a new value of these causes no recompilation


@triton.jit(do_not_specialize=VARYING)
def begin(
    function: tl.constexpr, arrays, states, first, lengths, reset, start, stop, batch, size,
    reads: tl.constexpr, writes: tl.constexpr, adds: tl.constexpr,
    directions: tl.constexpr, reverse: tl.constexpr, work: tl.constexpr,
    BLOCK_B: tl.constexpr, BLOCK_H: tl.constexpr, DIVISOR: tl.constexpr,
):  # fmt: skip
    """Run stage 0 of step ``start``, from the states that are carried to it. ``stop`` is the number of steps."""
    direction = tl.program_id(2) if directions > 1 else 0
    size, rows, units, present, inside, at, _plane, _everywhere = tile_of_step(
        batch, size, direction, directions, BLOCK_B, BLOCK_H, DIVISOR
    )
    carried = load_each(states, at, inside, work)
    _run(
        function, 0, reads, writes, adds, carried, arrays, first, lengths, reset, start, stop, batch, size,
        rows, units, present, directions, direction, direction != reverse, work,
    )  # fmt: skip


@triton.jit(do_not_specialize=VARYING)
def stage(
    function: tl.constexpr, number: tl.constexpr, arrays, first, left, lengths, reset, start, stop, batch, size,
    reads: tl.constexpr, writes: tl.constexpr, adds: tl.constexpr,
    next_reads: tl.constexpr, next_writes: tl.constexpr, next_adds: tl.constexpr, way: tl.constexpr,
    directions: tl.constexpr, reverse: tl.constexpr, work: tl.constexpr,
    BLOCK_B: tl.constexpr, BLOCK_H: tl.constexpr, DIVISOR: tl.constexpr,
):  # fmt: skip
    """Run a stage of step ``start``; ``stop`` is the number of steps. The last stage is given ``next_reads``, and also
    runs stage 0 of the next step: one later or, with ``way`` -1, one earlier. After the last step the carried values go
    to ``left``."""
    direction = tl.program_id(2) if directions > 1 else 0
    backwards = direction != reverse
    size, rows, units, present, inside, at, _plane, _everywhere = tile_of_step(
        batch, size, direction, directions, BLOCK_B, BLOCK_H, DIVISOR
    )
    made = _run(
        function, number, reads, writes, adds, (), arrays, first, lengths, reset, start, stop, batch, size,
        rows, units, present, directions, direction, backwards, work,
    )  # fmt: skip
    if next_reads is not None:
        carried = staged_access.carried_on(writes, made)
        after = start + way
        if (after >= 0) & (after < stop):
            _run(
                function, 0, next_reads, next_writes, next_adds, carried, arrays, first, lengths, reset, after, stop,
                batch, size, rows, units, present, directions, direction, backwards, work,
            )  # fmt: skip
        else:
            store_each(left, carried, at, inside)


@triton.jit
def _run(
    function: tl.constexpr, number: tl.constexpr, reads: tl.constexpr, writes: tl.constexpr, adds: tl.constexpr,
    carried, arrays, first, lengths, reset, i, steps, batch, size, rows, units, present,
    directions: tl.constexpr, direction, backwards, work: tl.constexpr,
):  # fmt: skip
    """Run a stage of step i. Returns the results of its function, and writes all except the carried ones."""
    t, earlier = time(i, steps, backwards)
    valid = True
    boundary = False
    if lengths is not None:
        valid = is_valid(lengths, t, rows, present)
    if reset is not None:
        boundary = is_boundary(reset, lengths, i, steps, batch, rows, present, backwards)
    read = staged_access.loaded(
        reads, arrays, first, i, t, earlier, rows, units, present, batch, size, directions, direction, work
    )
    read = staged_access.completed(reads, read, carried)
    made = function(number, read, valid, boundary, (present & (units < size), size))
    staged_access.write(writes, adds, made, arrays, t, rows, units, present, batch, size, directions, direction)
    return made
