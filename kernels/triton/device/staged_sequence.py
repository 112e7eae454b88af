"""The kernel of the persistent plan for cells that run by stages: all steps of a layer in one launch, forward or
backward.

The grid is (blocks of hidden units, blocks of the batch, directions), as in `sequence`. A group is the programs of one
block of the batch and one direction. A program keeps its units' part of all weights on the chip. It keeps in registers
the values that a later stage of the step reads. The operands of products go through memory: programs meet before each
stage that has products, and for each round of a stage's reductions.

* ring: for each operand (2, groups, heads, BLOCK_B, columns · WIDTH), one operand behind the other, for this step and
  the next, zero at first. After the column, an operand's place in the ring has four numbers: columns, heads, WIDTH, and
  the row length of all preceding operands;
* partials (rounds of reductions, groups, 2 · MOST, BLOCKS, BLOCK_B): the partial results of reductions, as in
  `reductions`;
* arrived: one counter for each group, `barrier.APART` apart, zero at first.

Two steps in the ring, and one in partials, are enough. Before a program writes to a place again, it meets the other
programs at least once after they have read that place.

A product is a tuple of constants. They are its stage, the operand's place in the ring, whether it is transposed, and
the number of row blocks. CHUNKS, AHEAD and SPLIT follow, as in `resident`. ``weights`` has a tensor (D · heads, row
blocks · H / heads, H / heads) for each product.
"""

import triton
import triton.language as tl

from . import barrier, resident, staged_access
from .tiles import is_boundary, is_valid, load_states, store_each, tile_of_sequence, time

# A new value of these causes no recompilation.
VARYING = ["start", "stop", "first_direction", "steps", "batch", "groups", "patience"]


@triton.jit(do_not_specialize=VARYING)
def run(
    function: tl.constexpr, arrays, weights, states, first, left, lengths, reset, ring, partials, arrived,
    start, stop, first_direction, steps, batch, size, groups, patience,
    reads: tl.constexpr, writes: tl.constexpr, adds: tl.constexpr, products: tl.constexpr,
    meetings: tl.constexpr, rounds: tl.constexpr, way: tl.constexpr,
    directions: tl.constexpr, reverse: tl.constexpr, work: tl.constexpr, precision: tl.constexpr, FLAGS: tl.constexpr,
    SHARED: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_H: tl.constexpr, BLOCKS: tl.constexpr, MOST: tl.constexpr,
    DIVISOR: tl.constexpr,
):  # fmt: skip
    """Run rows ``start`` to ``stop`` of the batch through all steps, from the carried ``states`` to the states in
    ``left``. With ``way`` -1 the last step comes first.

    ``reads``, ``writes`` and ``adds`` have an entry for each stage. ``meetings`` and ``rounds`` count a step's meetings
    and rounds of reductions before each stage; their last entries count the whole step.
    """
    direction = first_direction + tl.program_id(2) if directions > 1 else 0
    backwards = direction != reverse
    group, _first_row, size, rows, units, present, inside, at, _plane, _everywhere = tile_of_sequence(
        start, stop, batch, size, direction, directions, BLOCK_B, BLOCK_H, DIVISOR
    )
    counter = arrived + group * barrier.APART
    blocks = tl.arange(0, BLOCKS)[None, :]
    apart = groups * (2 * MOST * BLOCKS * BLOCK_B)
    partials += group * (2 * MOST * BLOCKS * BLOCK_B)

    held_weights = ()
    for m in tl.static_range(len(products)):
        held_weights = held_weights + (_hold(products[m], weights[m], direction, units, size, precision, BLOCK_H),)
    carried = load_states(states, len(states), at, inside, work)
    step = tl.full((), 0, tl.int32)
    while step < steps:
        for _ in range(steps if SHARED else 1):  # see `resident` for why there are two loops
            i = step if way == 1 else steps - 1 - step
            t, earlier = time(i, steps, backwards)
            valid = True
            boundary = False
            if lengths is not None:
                valid = is_valid(lengths, t, rows, present)
            if reset is not None:
                boundary = is_boundary(reset, lengths, i, steps, batch, rows, present, backwards)
            held = carried
            for k in tl.static_range(len(reads)):
                met = step * meetings[len(reads)] + meetings[k]
                # Reads that depend on no other program come first, to overlap the wait.
                read = staged_access.loaded(
                    reads[k], arrays, first, i, t, earlier, rows, units, present, batch, size,
                    directions, direction, work,
                )  # fmt: skip
                for m in tl.static_range(len(products)):
                    if products[m][0] == k:
                        found, patience = _multiplied(
                            products[m], ring, held_weights[m], counter, met, patience, step, group, groups, size,
                            precision, work, BLOCK_B, BLOCK_H, FLAGS,
                        )  # fmt: skip
                        held = held + found
                read = staged_access.completed(reads[k], read, held)
                row = inside, size, partials + rounds[k] * apart, apart, counter, met, patience, blocks
                made = function(k, read, valid, boundary, row)
                if k + 1 < len(reads):
                    _publish(
                        writes[k], made, ring, step, group, groups, units, inside, size, precision, BLOCK_B, BLOCK_H
                    )
                    barrier.arrive(counter)
                staged_access.write(
                    writes[k], adds[k], made, arrays, t, rows, units, present, batch, size, directions, direction
                )
                if k + 1 < len(reads):
                    held = held + made
                else:
                    carried = _whole(staged_access.carried_on(writes[k], made), inside, work)
            step += 1
    store_each(left, carried, at, inside)
    barrier.check_in_time(patience)


@triton.jit
def _whole(tiles, inside, work: tl.constexpr):
    """Expand carried values to the shape of the tile and the dtype ``work``, which must not change in the loop."""
    found = ()
    for k in tl.static_range(len(tiles)):
        found = found + (tl.zeros(inside.shape, work) + tiles[k],)
    return found


@triton.jit
def _head(size, heads: tl.constexpr, BLOCK_H: tl.constexpr):
    """The head that a program's units belong to, and the number of a head's units. No program has units of two
    heads."""
    if heads == 1:
        return 0, size
    else:
        of_head = size // heads
        return tl.program_id(0) * BLOCK_H // of_head, of_head


@triton.jit
def _hold(product: tl.constexpr, weight, direction, units, size, precision: tl.constexpr, BLOCK_H: tl.constexpr):
    """Load a program's part of a product's weight."""
    heads: tl.constexpr = product[1][4]
    blocks: tl.constexpr = product[3]
    head, of_head = _head(size, heads, BLOCK_H)
    own = units - head * of_head
    base = weight + (direction * heads + head) * (blocks * of_head * of_head)
    if product[2]:
        return resident.hold(base, 1, of_head, of_head, 1, own, product[4], product[1][5], product[6], precision)
    else:
        return resident.hold(base, blocks, of_head, 1, of_head, own, product[4], product[1][5], product[6], precision)


@triton.jit
def _multiplied(
    product: tl.constexpr, ring, weights, counter, met, patience, step, group, groups, size,
    precision: tl.constexpr, work: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_H: tl.constexpr, FLAGS: tl.constexpr,
):  # fmt: skip
    """The results of a product's row blocks, or for a transposed product their sum, and the patience left. The program
    first waits until all programs have written the operand."""
    place: tl.constexpr = product[1]
    pitch: tl.constexpr = place[3] * place[5]
    planes: tl.constexpr = 1 if product[2] else product[3]
    head, _ = _head(size, place[4], BLOCK_H)
    base = ring + _in_ring(place, step, group, groups, head, BLOCK_B)
    return resident.product(
        base, pitch, weights, counter, met, patience, planes, precision, work,
        BLOCK_B, BLOCK_H, product[4], product[5], place[5], product[6], FLAGS,
    )  # fmt: skip


@triton.jit
def _publish(
    writes: tl.constexpr, made, ring, step, group, groups, units, inside, size, precision: tl.constexpr,
    BLOCK_B: tl.constexpr, BLOCK_H: tl.constexpr,
):  # fmt: skip
    """Write the operands of products to the ring. Stage 0's operands, too, go to the slot of their own step."""
    for k in tl.static_range(len(writes)):
        if writes[k][0] == "ring":
            head, of_head = _head(size, writes[k][4], BLOCK_H)
            here = ring + _in_ring(writes[k], step, group, groups, head, BLOCK_B)
            here += tl.arange(0, BLOCK_B)[:, None] * (writes[k][3] * writes[k][5])
            value = (tl.zeros(inside.shape, tl.float32) + made[k]).to(ring.dtype.element_ty)
            own = writes[k][2] * writes[k][5] + units - head * of_head
            tl.store(here + own, resident.rounded(value, precision), inside)


@triton.jit
def _in_ring(place: tl.constexpr, step, group, groups, head, BLOCK_B: tl.constexpr):
    """Where an operand of a step begins in the ring."""
    size: tl.constexpr = BLOCK_B * place[3] * place[5]
    slot = (step % 2) * groups + group
    return groups.to(tl.int64) * (2 * BLOCK_B * place[6]) + (slot * place[4] + head) * size
