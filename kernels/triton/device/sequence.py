"""The kernels of the persistent plan: all steps of a layer in one launch, forward and backward, for any cell.

The grid is (blocks of hidden units, blocks of the batch, directions). A program keeps its units' part of the recurrent
weights on the chip, and its units' states in registers. A product also reads the units of other programs: the hidden
state in forward, the gradients dr in backward. These go through memory (the L2 cache), and the programs of a batch
block and direction meet once a step. A program alone in its block has all units, and neither writes for other programs
nor waits.

Shapes, for D directions: x, grad_x (T, B, D·G·H); grad_r (T, B, D·R·H); weight (D, R·H, H); bias (D, R·H); parameters
(D, rows, H). An array of all steps, such as output, is (T, B, D·H); several of them are (count, T, B, D·H). States are
S tensors (D, B, H), and so are their gradients. Everything but products is computed in float32, or in float64 where x
is float64.

A stack has its layers in the place of directions. Its weight_ih (L - 1, G·H, H) and bias_ih (L - 1, G·H) belong to all
layers but the lowest: see `between`.

A group is the programs of one batch block and direction. ``arrived`` has an int32 counter for each of ``groups``, or
with ``FLAGS`` one for each program, `barrier.APART` apart. ``ring`` (2, groups, BLOCK_B, ·) has what programs exchange,
for this step and the next. Both are zero at first. Programs that wait in vain stop with an error.

Two steps in the ring are enough, with flags too. No program writes step i + 1, in the place of step i - 1, before all
programs have read step i - 1: it first reads their step i, which they wrote after that.
"""

import triton
import triton.language as tl

from . import barrier, resident, wavefront
from .tiles import (
    accumulate,
    add,
    is_boundary,
    is_valid,
    load,
    load_each,
    load_states,
    place_in_window,
    states_around,
    store,
    store_each,
    store_some,
    tile_of_sequence,
    time,
    where,
    where_or_zero,
)

# A new value of these causes no recompilation.
VARYING = ["start", "stop", "first_direction", "begin", "end", "steps", "batch", "groups", "patience", "window"]


@triton.jit(do_not_specialize=VARYING)
def forward(
    cell: tl.constexpr, x, weight, bias, weight_ih, bias_ih, initial, parameters, reset_states, lengths, reset, output,
    final, saved, after, ring, arrived, start, stop, first_direction, steps, batch, size, groups, patience,
    gates: tl.constexpr, recurrent: tl.constexpr, rows_of_parameters: tl.constexpr, kept: tl.constexpr,
    directions: tl.constexpr, reverse: tl.constexpr, led: tl.constexpr, precision: tl.constexpr, ALONE: tl.constexpr,
    FLAGS: tl.constexpr, SHARED: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_H: tl.constexpr, CHUNKS: tl.constexpr,
    BETWEEN: tl.constexpr, AHEAD: tl.constexpr, WIDTH: tl.constexpr, SPLIT: tl.constexpr, DIVISOR: tl.constexpr,
):  # fmt: skip
    """Run rows ``start`` to ``stop`` of the batch, from the states initial, None for zeros, to final. ``output`` is 0
    at padded times.

    With ``led`` the output has memory for one more time step before its first and after its last. Each direction writes
    there the hidden state that its first step reads. So this memory holds the operands of all recurrent products.

    Optional outputs: ``saved``, the cell's values for backward; ``after``, states after each step. ``kept`` has each
    state's index in ``after``, or -1.
    """
    work: tl.constexpr = tl.float64 if x.dtype.element_ty == tl.float64 else tl.float32
    stored: tl.constexpr = x.dtype.element_ty
    count: tl.constexpr = len(kept)
    direction = first_direction + tl.program_id(2) if directions > 1 else 0
    backwards = direction != reverse if weight_ih is None else False
    group, first_row, size, rows, units, present, inside, at, plane, everywhere = tile_of_sequence(
        start, stop, batch, size, direction, directions, BLOCK_B, BLOCK_H, DIVISOR
    )
    if not ALONE:
        counters, counter = barrier.counters_of(arrived, group, FLAGS)
        pitch: tl.constexpr = WIDTH
        here = tl.arange(0, BLOCK_B)[:, None] * pitch + units

    s = load_states(initial, count, at, inside, work)
    p = load(parameters, rows_of_parameters, size, direction * (rows_of_parameters * size) + everywhere, inside, work)
    b = ()
    if recurrent > 0:
        own = weight + direction * recurrent * size * size
        held = resident.hold(own, recurrent, size, 1, size, units, CHUNKS, WIDTH, SPLIT, precision)
        if bias is not None:
            b = load(bias, recurrent, size, direction * (recurrent * size) + everywhere, inside, work)
    if weight_ih is not None:
        pair, counter_below, there = wavefront.neighbour(counter, direction, -1, directions)
        own_ih = weight_ih + pair * gates * size * size
        held_ih = resident.hold(own_ih, gates, size, 1, size, units, BETWEEN, WIDTH, SPLIT, precision)
        b_ih = ()
        if bias_ih is not None:
            b_ih = load(bias_ih, gates, size, pair * (gates * size) + everywhere, inside & (rows < stop * there), work)
    if reset is not None:
        reset_to = load_each(reset_states, at, inside, work)
        s = where(is_boundary(reset, lengths, 0, steps, batch, rows, present, backwards), reset_to, s)
    if led:
        before = tl.where(backwards, steps, -1).to(tl.int64)
        tl.store(output + ((before * batch + rows) * directions + direction) * size + units, s[0], inside)
    if not ALONE:
        tl.store(ring + group * (BLOCK_B * pitch) + here, resident.rounded(s[0], precision), inside)
        barrier.arrive(counter)
    i = tl.full((), 0, tl.int32)
    while i < steps:
        for _ in range(steps if SHARED else 1):  # see `resident` for why there are two loops
            t, _ = time(i, steps, backwards)
            row = (t * batch + rows) * directions + direction
            place = row * size + units
            if weight_ih is None:
                xs = load(x, gates, size, row * (gates * size) + units, inside, work)
            else:
                xs, patience = wavefront.from_below(
                    t, x, held_ih, b_ih, output, counter_below, (i + 2) * tl.num_programs(0), patience, there,
                    direction, first_row, rows, units, stop, batch, size,
                    gates, directions, work, precision, BLOCK_B, BETWEEN, WIDTH, SPLIT,
                )  # fmt: skip
            r = ()
            if recurrent > 0:
                if ALONE:
                    r = resident.own_product((s[0],), inside, held, recurrent, precision, work, stored, SPLIT)
                else:
                    slot = ring + ((i % 2) * groups + group) * (BLOCK_B * pitch)
                    r, patience = resident.product(
                        slot, pitch, held, counters, i + 1, patience, recurrent, precision, work,
                        BLOCK_B, BLOCK_H, CHUNKS, AHEAD, WIDTH, SPLIT, FLAGS,
                    )  # fmt: skip
                r = add(r, b)
            n, values = cell(xs, r, s, p)
            h = n[0]
            if lengths is not None:
                valid = is_valid(lengths, t, rows, present)
                n = where(valid, n, s)
                h = tl.where(valid, h, 0.0)
            s = n
            if reset is not None:
                reset_to = load_each(reset_states, at, inside, work)
                s = where(is_boundary(reset, lengths, i + 1, steps, batch, rows, present, backwards), reset_to, n)
            if weight_ih is not None:
                tl.store(output + place, h, inside)
            if not ALONE:
                slot = ring + (((i + 1) % 2) * groups + group) * (BLOCK_B * pitch)
                tl.store(slot + here, resident.rounded(s[0], precision), inside)
                barrier.arrive(counter)
            # What only the host reads is written after the arrival, to overlap the wait for other programs.
            if weight_ih is None:
                tl.store(output + place, h, inside)
            if saved is not None:
                store(saved, values, steps * plane, place, inside)
            if after is not None:
                store_some(after, n, kept, steps * plane, place, inside)
            i += 1
    store_each(final, s, at, inside)
    if not ALONE:
        barrier.check_in_time(patience)


@triton.jit(do_not_specialize=VARYING)
def backward(
    cell: tl.constexpr, weight, weight_ih, saved, before, first, after, result, parameters, reset_states, lengths,
    reset, grad_output, grad_final, grad_states, grad_initial, grad_reset_states, grad_parameters, grad_x, grad_r, ring,
    arrived, start, stop, first_direction, begin, end, steps, batch, size, groups, patience, window,
    gates: tl.constexpr, recurrent: tl.constexpr, rows_of_parameters: tl.constexpr, values: tl.constexpr,
    kept: tl.constexpr, previous: tl.constexpr, next: tl.constexpr, dr_is_dx: tl.constexpr,
    directions: tl.constexpr, reverse: tl.constexpr, precision: tl.constexpr, ALONE: tl.constexpr,
    FLAGS: tl.constexpr, SHARED: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_H: tl.constexpr, CHUNKS: tl.constexpr,
    BETWEEN: tl.constexpr, AHEAD: tl.constexpr, WIDTH: tl.constexpr, SPLIT: tl.constexpr, DIVISOR: tl.constexpr,
):  # fmt: skip
    """Run backward for those rows and steps ``begin`` to ``end``, the last first.

    grad_final is the gradient of the states after the last step, None for zeros. grad_initial, if given, becomes the
    gradient of the states before the first step; a boundary there is left to the caller. Instead of both, grad_states
    (S, D, B, H) may carry the gradients from launch to launch in full precision.

    ``saved`` is what `forward` wrote; before, first, after and result are as in `states_around`. With ``window``,
    saved, before, grad_x and grad_r hold that many steps, as in `gates.values`. ``previous`` and ``next`` flag the
    states that are read before and after a step. With ``dr_is_dx`` grad_r equals grad_x, and is not written.
    grad_parameters (rows, D, B, H) and grad_reset_states are added to.
    """
    work: tl.constexpr = tl.float64 if grad_output.dtype.element_ty == tl.float64 else tl.float32
    stored: tl.constexpr = grad_x.dtype.element_ty
    count: tl.constexpr = len(kept)
    direction = first_direction + tl.program_id(2) if directions > 1 else 0
    backwards = direction != reverse if weight_ih is None else False
    group, first_row, size, rows, units, present, inside, at, plane, everywhere = tile_of_sequence(
        start, stop, batch, size, direction, directions, BLOCK_B, BLOCK_H, DIVISOR
    )
    if not ALONE:
        counters, counter = barrier.counters_of(arrived, group, FLAGS)
        pitch: tl.constexpr = WIDTH * recurrent
        here = tl.arange(0, BLOCK_B)[:, None] * pitch + units

    if grad_states is not None:
        d = load(grad_states, count, plane, at, inside, work)
    else:
        d = load_states(grad_final, count, at, inside, work)
    p = load(parameters, rows_of_parameters, size, direction * (rows_of_parameters * size) + everywhere, inside, work)
    sums = load(grad_parameters, rows_of_parameters, plane, at, inside, work)
    if recurrent > 0:
        own = weight + direction * recurrent * size * size
        held = resident.hold(own, 1, size, size, 1, units, CHUNKS, WIDTH, SPLIT, precision)
    if weight_ih is not None:
        pair, counter_above, there = wavefront.neighbour(counter, direction, 1, directions)
        own_ih = weight_ih + pair * gates * size * size
        held_ih = resident.hold(own_ih, 1, size, size, 1, units, BETWEEN, WIDTH, SPLIT, precision)
    i = end - 1
    s, n, v, g = _recall(
        i, saved, window, before, first, after, result, reset_states, lengths, reset,
        grad_output if weight_ih is None else None, steps, batch, size, rows, units, present,
        values, kept, previous, next, directions, direction, backwards, work,
    )  # fmt: skip
    if weight_ih is not None:
        g = (tl.zeros((BLOCK_B, BLOCK_H), work),)
        # In a loop too: weights read from shared memory outside a loop would stay in registers during the time loop.
        for _ in range(tl.minimum(steps, 1) if SHARED else 1):
            g, patience = wavefront.from_above(
                i, grad_output, held_ih, grad_x, counter_above, tl.num_programs(0), patience, there,
                direction, first_row, rows, units, stop, batch, size,
                gates, directions, work, precision, BLOCK_B, BETWEEN, WIDTH, SPLIT,
            )  # fmt: skip
    while i >= begin:
        for _ in range(end - begin if SHARED else 1):
            t, _ = time(i, steps, backwards)
            row = (t * batch + rows) * directions + direction
            if reset is not None:
                flag = is_boundary(reset, lengths, i + 1, steps, batch, rows, present, backwards)
                if grad_reset_states is not None:
                    accumulate(grad_reset_states, where_or_zero(flag, d), plane, at, inside)
                d = where_or_zero(~flag, d)
            if lengths is not None:
                valid = is_valid(lengths, t, rows, present)
                g = where_or_zero(valid, g)
            passed = add(d, g)
            dx, dr, d, dp = cell(v, s, n, p, passed)
            if lengths is not None:
                dx, dr, dp = where_or_zero(valid, dx), where_or_zero(valid, dr), where_or_zero(valid, dp)
                d = where(valid, d, passed)
            if weight_ih is not None:
                store(grad_x, dx, size, row * (gates * size) + units, inside)
            if not ALONE:
                slot = ring + ((i % 2) * groups + group) * (BLOCK_B * pitch)
                for k in tl.static_range(recurrent):
                    tl.store(slot + k * WIDTH + here, resident.rounded(dr[k], precision), inside)
                barrier.arrive(counter)
            # Writes that only the host reads, and reads for the next step, overlap the wait for other programs.
            if window is not None:
                row = (place_in_window(i, window, steps, backwards) * batch + rows) * directions + direction
            if weight_ih is None:
                store(grad_x, dx, size, row * (gates * size) + units, inside)
            if not dr_is_dx:
                store(grad_r, dr, size, row * (recurrent * size) + units, inside)
            sums = add(sums, dp)
            earlier = tl.maximum(i - 1, begin)
            s, n, v, g = _recall(
                earlier, saved, window, before, first, after, result, reset_states, lengths, reset,
                grad_output if weight_ih is None else None, steps, batch, size, rows, units,
                present, values, kept, previous, next, directions, direction, backwards, work,
            )  # fmt: skip
            if weight_ih is not None:
                g, patience = wavefront.from_above(
                    earlier, grad_output, held_ih, grad_x, counter_above, (steps - earlier) * tl.num_programs(0),
                    patience, there, direction, first_row, rows, units, stop, batch, size,
                    gates, directions, work, precision, BLOCK_B, BETWEEN, WIDTH, SPLIT,
                )  # fmt: skip
            if recurrent > 0:
                if ALONE:
                    passed = resident.own_product(dr, inside, held, 1, precision, work, stored, SPLIT)
                else:
                    passed, patience = resident.product(
                        slot, pitch, held, counters, end - i, patience, 1, precision, work,
                        BLOCK_B, BLOCK_H, CHUNKS, AHEAD, WIDTH, SPLIT, FLAGS,
                    )  # fmt: skip
                d = add(d, passed)
            i -= 1
    if grad_initial is not None:
        store_each(grad_initial, d, at, inside)
    if grad_states is not None:
        store(grad_states, d, plane, at, inside)
    if grad_parameters is not None:
        store(grad_parameters, sums, plane, at, inside)
    if not ALONE:
        barrier.check_in_time(patience)


@triton.jit
def _recall(
    i, saved, window, before, first, after, result, reset_states, lengths, reset, grad_output, steps, batch, size, rows,
    units, present, values: tl.constexpr, kept: tl.constexpr, previous: tl.constexpr, next: tl.constexpr,
    directions: tl.constexpr, direction, backwards, work: tl.constexpr,
):  # fmt: skip
    """What backward reads at step i: the states before and after it, the cell's saved values, and the output's gradient
    if that is given."""
    s, n = states_around(
        i, window, before, first, after, result, reset_states, lengths, reset, steps, batch, size, rows, units, present,
        kept, previous, next, directions, direction, backwards, work,
    )  # fmt: skip
    t, _ = time(i, steps, backwards)
    place = ((t * batch + rows) * directions + direction) * size + units
    inside = present & (units < size)
    stack = steps * (batch.to(tl.int64) * (directions * size))
    g = ()
    if grad_output is not None:
        g = load(grad_output, 1, 0, place, inside, work)
    if window is not None:
        moment = place_in_window(i, window, steps, backwards)
        place = ((moment * batch + rows) * directions + direction) * size + units
        stack = window * (batch.to(tl.int64) * (directions * size))
    return s, n, load(saved, values, stack, place, inside, work), g
