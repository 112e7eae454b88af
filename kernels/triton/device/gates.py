"""The fused-gates kernels: all that a step does but its products, forward and backward, for any cell; and `values`,
what forward saves, once more.

Both run steps ``start`` to ``stop`` (in the order of travel) of a tile of the batch and its units in one direction. A
cell with a recurrent product is given one step at a launch, its products made in between, or, forward, by the kernel
itself; a cell without one all of them.

Shapes: x, grad_x (T, B, D·G·H); product, grad_product (D, B, R·H); grad_r (T, B, D·R·H); weight (D, R·H, H); bias
(D, R·H); states and all gradients of states (S, D, B, H), but of first and fresh each state by itself; parameters
(D, rows, H); what is kept of each step, such as output, (T, B, D·H), of several (count, T, B, D·H). Everything computed
with is in ``states.dtype``, float32 or float64; other tensors may be stored narrower.
"""

import triton
import triton.language as tl

from .tiles import (
    accumulate,
    add,
    is_boundary,
    is_valid,
    load,
    load_each,
    load_states,
    place_in_window,
    place_of_tile,
    product_of_rows,
    states_around,
    store,
    store_each,
    store_some,
    time,
    where,
    where_or_zero,
)

VARYING = ["start", "stop", "steps", "batch", "slots", "window", "size"]  # none of these makes the compiler start again


@triton.jit(do_not_specialize=VARYING)
def forward(
    cell: tl.constexpr, x, product, weight, bias, states, parameters, fresh, lengths, reset, output, hidden, saved,
    after, start, stop, steps, batch, size, slots,
    gates: tl.constexpr, recurrent: tl.constexpr, rows_of_parameters: tl.constexpr, kept: tl.constexpr,
    directions: tl.constexpr, reverse: tl.constexpr, precision: tl.constexpr,
    ROWS: tl.constexpr, UNITS: tl.constexpr, DIVISOR: tl.constexpr,
    ALIGNED: tl.constexpr, WIDTH: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """One step, and then another: states in and out in place, in full precision; output where it is valid, else 0.

    Written where given: hidden (slots, D, B, H), a ring of what the next step's product reads; saved, the cell's own;
    after, some of the states as they are after each step: ``kept`` has a state's place there, or -1. The product is
    read, or, where there is ``weight``, made here of what ``hidden`` has for this step (one step then, and no more).
    """
    work: tl.constexpr = states.dtype.element_ty
    count: tl.constexpr = len(kept)
    direction = tl.program_id(2) if directions > 1 else 0
    backwards = direction != reverse
    size = size // DIVISOR * DIVISOR  # the same, in a form that tells the compiler how wide it may read
    rows, units, present, inside, at, plane, everywhere = place_of_tile(
        tl.program_id(0) * ROWS, batch, tl.program_id(1) * UNITS, batch, size, direction, directions, ROWS, UNITS
    )
    beside = direction * batch + rows

    s = load(states, count, plane, at, inside, work)
    p = load(parameters, rows_of_parameters, size, direction * (rows_of_parameters * size) + everywhere, inside, work)
    i = start
    while i < stop:
        t, _ = time(i, steps, backwards)
        row = (t * batch + rows) * directions + direction
        place = row * size + units
        if reset is not None:
            renewed = load_each(fresh, at, inside, work)
            s = where(is_boundary(reset, lengths, i, steps, batch, rows, present, backwards), renewed, s)
        given = load(x, gates, size, row * (gates * size) + units, inside, work)
        r = ()
        if recurrent > 0:
            if weight is None:
                r = load(product, recurrent, size, beside * (recurrent * size) + units, inside, work)
            else:
                before = hidden + (i % slots) * plane + direction * batch * size
                own = weight + direction * recurrent * size * size
                aligned = size // ALIGNED * ALIGNED
                r = product_of_rows(
                    before, own, recurrent, aligned, aligned, rows, units, present, work, precision,
                    ROWS, UNITS, WIDTH, DOT,
                )  # fmt: skip
            if bias is not None:
                r = add(r, load(bias, recurrent, size, direction * (recurrent * size) + everywhere, inside, work))
        n, values = cell(given, r, s, p)
        h = n[0]
        if lengths is not None:
            valid = is_valid(lengths, t, rows, present)
            n = where(valid, n, s)
            h = tl.where(valid, h, 0.0)
        tl.store(output + place, h, inside)
        if hidden is not None:
            h = n[0]
            if reset is not None:
                renewed = load_each(fresh, at, inside, work)
                flag = is_boundary(reset, lengths, i + 1, steps, batch, rows, present, backwards)
                h = tl.where(flag, renewed[0], h)
            tl.store(hidden + ((i + 1) % slots) * plane + at, h, inside)
        if saved is not None:
            store(saved, values, steps * plane, place, inside)
        if after is not None:
            store_some(after, n, kept, steps * plane, place, inside)
        s = n
        i += 1
    store(states, s, plane, at, inside)


@triton.jit(do_not_specialize=VARYING)
def backward(
    cell: tl.constexpr, again: tl.constexpr, x, product, bias, saved, before, first, after, result, parameters, fresh,
    lengths, reset, grad_output, grad_read, grad_final, grad_states, grad_initial, grad_fresh, grad_parameters, grad_x,
    grad_r, grad_product,
    start, stop, steps, batch, size, window,
    gates: tl.constexpr, recurrent: tl.constexpr, rows_of_parameters: tl.constexpr, values: tl.constexpr,
    kept: tl.constexpr, previous: tl.constexpr, next: tl.constexpr, uncut: tl.constexpr,
    directions: tl.constexpr, reverse: tl.constexpr, ROWS: tl.constexpr, UNITS: tl.constexpr, DIVISOR: tl.constexpr,
):  # fmt: skip
    """Gradients of those steps, the last first: grad_states, of the states after step stop - 1, becomes that of the
    states before step start (but for a boundary there: the caller's next launch, or the caller, cuts it). In its place
    there may be grad_final, to be read, None for zeros, and grad_initial, to be written if given, of each state by
    itself.

    grad_read (D, B, H) is what of the hidden state's gradient came through the product that read it, in the step after;
    grad_product, where given, takes dr for that of this step. Read where needed: before to result, as `states_around`
    has them. ``again`` is the cell's forward where the values it saves are to be computed once more from x and product
    (D, window, B, R·H), or None. With ``window`` these, before, grad_x and grad_r are of so many steps alone, of each
    direction its own, in the order of time. ``previous`` and ``next`` say which states are read before and after a
    step. grad_fresh and grad_parameters (rows, D, B, H) are added to. The first ``uncut`` states do not cross steps, so
    no boundary cuts them, and grad_fresh has nothing of theirs.
    """
    work: tl.constexpr = tl.float64 if grad_x.dtype.element_ty == tl.float64 else tl.float32
    count: tl.constexpr = len(kept)
    direction = tl.program_id(2) if directions > 1 else 0
    backwards = direction != reverse
    size = size // DIVISOR * DIVISOR  # the same, in a form that tells the compiler how wide it may read
    rows, units, present, inside, at, plane, everywhere = place_of_tile(
        tl.program_id(0) * ROWS, batch, tl.program_id(1) * UNITS, batch, size, direction, directions, ROWS, UNITS
    )
    beside = direction * batch + rows

    if grad_states is not None:
        d = load(grad_states, count, plane, at, inside, work)
    else:
        d = load_states(grad_final, count, at, inside, work)
    p = load(parameters, rows_of_parameters, size, direction * (rows_of_parameters * size) + everywhere, inside, work)
    i = stop - 1
    while i >= start:
        t, _ = time(i, steps, backwards)
        row = (t * batch + rows) * directions + direction
        place = row * size + units
        if grad_read is not None:
            d = add(d, load(grad_read, 1, 0, at, inside, work))
        if reset is not None:
            flag = is_boundary(reset, lengths, i + 1, steps, batch, rows, present, backwards)
            if grad_fresh is not None:
                accumulate(grad_fresh, where_or_zero(flag, d), plane, at, inside)
            d = where_or_zero(~flag, d, uncut)
        if lengths is not None:
            valid = is_valid(lengths, t, rows, present)
        if grad_output is not None:
            g = load(grad_output, 1, 0, place, inside, work)
            if lengths is not None:
                g = where_or_zero(valid, g)
            d = add(d, g)
        passed = d

        s, n = states_around(
            i, window, before, first, after, result, fresh, lengths, reset, steps, batch, size, rows, units, present,
            kept, previous, next, directions, direction, backwards, work,
        )  # fmt: skip
        if again is None:
            v = load(saved, values, steps * plane, place, inside, work)
        else:
            v = _values(
                again, i, x, product, bias, s, p, steps, batch, size, rows, units, inside, everywhere, window,
                gates, recurrent, directions, direction, backwards, work,
            )  # fmt: skip

        dx, dr, d, dp = cell(v, s, n, p, d)
        if lengths is not None:
            dx, dr, dp = where_or_zero(valid, dx), where_or_zero(valid, dr), where_or_zero(valid, dp)
            d = where(valid, d, passed)
        if window is not None:
            row = (place_in_window(i, window, steps, backwards) * batch + rows) * directions + direction
        store(grad_x, dx, size, row * (gates * size) + units, inside)
        if grad_r is not None:
            store(grad_r, dr, size, row * (recurrent * size) + units, inside)
        if grad_product is not None:
            store(grad_product, dr, size, beside * (recurrent * size) + units, inside)
        if grad_parameters is not None:
            accumulate(grad_parameters, dp, plane, at, inside)
        i -= 1
    if grad_initial is not None:
        store_each(grad_initial, d, at, inside)
    if grad_states is not None:
        store(grad_states, d, plane, at, inside)


@triton.jit(do_not_specialize=VARYING)
def values(
    cell: tl.constexpr, x, product, bias, saved, before, first, after, parameters, fresh, lengths, reset,
    start, stop, steps, batch, size, window,
    gates: tl.constexpr, recurrent: tl.constexpr, rows_of_parameters: tl.constexpr, kept: tl.constexpr,
    previous: tl.constexpr, next: tl.constexpr, directions: tl.constexpr, reverse: tl.constexpr,
    ROWS: tl.constexpr, UNITS: tl.constexpr, DIVISOR: tl.constexpr,
):  # fmt: skip
    """What the cell's forward saves of those steps, a window's, all at once: saved (count, window, B, D·H). The rest is
    as `backward` has it; in the grid the batch comes once for each step of a window.
    """
    work: tl.constexpr = tl.float64 if x.dtype.element_ty == tl.float64 else tl.float32
    direction = tl.program_id(2) if directions > 1 else 0
    backwards = direction != reverse
    size = size // DIVISOR * DIVISOR  # the same, in a form that tells the compiler how wide it may read
    tiles = tl.cdiv(batch, ROWS)
    i = start + tl.program_id(0) // tiles
    rows, units, present, inside, _, plane, everywhere = place_of_tile(
        tl.program_id(0) % tiles * ROWS, tl.where(i < stop, batch, 0), tl.program_id(1) * UNITS,
        batch, size, direction, directions, ROWS, UNITS,
    )  # fmt: skip
    p = load(parameters, rows_of_parameters, size, direction * (rows_of_parameters * size) + everywhere, inside, work)
    s, _ = states_around(
        i, window, before, first, after, None, fresh, lengths, reset, steps, batch, size, rows, units, present,
        kept, previous, next, directions, direction, backwards, work,
    )  # fmt: skip
    v = _values(
        cell, i, x, product, bias, s, p, steps, batch, size, rows, units, inside, everywhere, window,
        gates, recurrent, directions, direction, backwards, work,
    )  # fmt: skip
    moment = place_in_window(i, window, steps, backwards)
    place = ((moment * batch + rows) * directions + direction) * size + units
    store(saved, v, window * plane, place, inside)


@triton.jit
def _values(
    cell: tl.constexpr, i, x, product, bias, s, p, steps, batch, size, rows, units, inside, everywhere, window,
    gates: tl.constexpr, recurrent: tl.constexpr, directions: tl.constexpr, direction, backwards, work: tl.constexpr,
):  # fmt: skip
    """What the cell's forward saves of step i, which is one of the window that x and product (D, window, B, R·H) are
    of."""
    moment = place_in_window(i, window, steps, backwards)
    r = ()
    if recurrent > 0:
        held = (direction * window + moment) * batch + rows
        r = load(product, recurrent, size, held * (recurrent * size) + units, inside, work)
        if bias is not None:
            r = add(r, load(bias, recurrent, size, direction * (recurrent * size) + everywhere, inside, work))
    row = (moment * batch + rows) * directions + direction
    _, v = cell(load(x, gates, size, row * (gates * size) + units, inside, work), r, s, p)
    return v
