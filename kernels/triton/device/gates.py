"""The fused-gates kernels: everything in a time step except its GEMM, forward and backward, for any cell. `values`
recomputes what forward saves.

`forward` and `backward` run steps ``start`` to ``stop``, in the order of travel, for a tile of rows and units in one
direction. A cell with a recurrent product gets one launch per step. Its product is a GEMM between launches or, in
forward, made by the kernel itself. A cell with neither a recurrent product nor a projection runs all its steps in one
launch.

Shapes: x, grad_x (T, B, D·G·H); product, grad_product (D, B, R·H); grad_r (T, B, D·R·H); weight (D, R·H, H); bias (D,
R·H); parameters (D, rows, H). States and their gradients are (S, D, B, H), but first, reset_states, grad_final and
grad_initial are one tensor (D, B, H) per state. An array of all steps, such as output, is (T, B, D·H); several of them
are (count, T, B, D·H). All arithmetic is in ``states.dtype``, float32 or float64; other tensors may be stored in a
narrower dtype.
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
    tile_of_step,
    time,
    where,
    where_or_zero,
)

VARYING = ["start", "stop", "steps", "batch", "slots", "window", "size"]  # a new value of these causes no recompilation


@triton.jit(do_not_specialize=VARYING)
def forward(
    cell: tl.constexpr, x, product, weight, bias, states, parameters, reset_states, lengths, reset, output, hidden,
    saved, after, start, stop, steps, batch, size, slots,
    gates: tl.constexpr, recurrent: tl.constexpr, rows_of_parameters: tl.constexpr, kept: tl.constexpr,
    directions: tl.constexpr, reverse: tl.constexpr, precision: tl.constexpr,
    BLOCK_B: tl.constexpr, BLOCK_H: tl.constexpr, DIVISOR: tl.constexpr,
    ALIGNED: tl.constexpr, WIDTH: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """Run the steps. ``states`` are updated in place, in full precision. ``output`` is 0 at padded times.

    Optional outputs: ``hidden`` (slots, D, B, H), a ring of hidden states that the next step's product reads;
    ``saved``, the cell's values for backward; ``after``, states after each step. ``kept`` has each state's index in
    ``after``, or -1. The recurrent product is read from ``product``. With ``weight`` the kernel makes it from
    ``hidden`` instead, and a launch runs one step only.
    """
    work: tl.constexpr = states.dtype.element_ty
    count: tl.constexpr = len(kept)
    direction = tl.program_id(2) if directions > 1 else 0
    backwards = direction != reverse
    size, rows, units, present, inside, at, plane, everywhere = tile_of_step(
        batch, size, direction, directions, BLOCK_B, BLOCK_H, DIVISOR
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
            reset_to = load_each(reset_states, at, inside, work)
            s = where(is_boundary(reset, lengths, i, steps, batch, rows, present, backwards), reset_to, s)
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
                    BLOCK_B, BLOCK_H, WIDTH, DOT,
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
                reset_to = load_each(reset_states, at, inside, work)
                flag = is_boundary(reset, lengths, i + 1, steps, batch, rows, present, backwards)
                h = tl.where(flag, reset_to[0], h)
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
    cell: tl.constexpr, again: tl.constexpr, x, product, bias, saved, before, first, after, result, parameters,
    reset_states, lengths, reset, grad_output, grad_read, grad_final, grad_states, grad_initial, grad_reset_states,
    grad_parameters, grad_x, grad_r, grad_product,
    start, stop, steps, batch, size, window,
    gates: tl.constexpr, recurrent: tl.constexpr, rows_of_parameters: tl.constexpr, values: tl.constexpr,
    kept: tl.constexpr, previous: tl.constexpr, next: tl.constexpr, uncut: tl.constexpr,
    directions: tl.constexpr, reverse: tl.constexpr,
    BLOCK_B: tl.constexpr, BLOCK_H: tl.constexpr, DIVISOR: tl.constexpr,
):  # fmt: skip
    """Run backward for the steps, the last first. grad_states, the gradient of the states after step stop - 1, becomes
    the gradient of the states before step start. A boundary before step start is left to the next launch, or to the
    caller. Without grad_states the kernel reads grad_final, None for zeros, and writes grad_initial, if given.

    grad_read (D, B, H) is the part of the hidden state's gradient that comes through the next step's recurrent product.
    grad_product, if given, receives this step's dr. before, first, after and result are as in `states_around`.
    ``again`` is the cell's forward where its saved values are recomputed from x and product (D, window, B, R·H), else
    None. With ``window``, the arrays x, product, before, grad_x and grad_r hold that many steps: for each direction its
    own, in the order of time. ``previous`` and ``next`` flag the states that are read before and after a step.
    grad_reset_states and grad_parameters (rows, D, B, H) are added to. The first ``uncut`` states do not cross steps:
    no boundary cuts them, and their part of grad_reset_states is not used.
    """
    work: tl.constexpr = tl.float64 if grad_x.dtype.element_ty == tl.float64 else tl.float32
    count: tl.constexpr = len(kept)
    direction = tl.program_id(2) if directions > 1 else 0
    backwards = direction != reverse
    size, rows, units, present, inside, at, plane, everywhere = tile_of_step(
        batch, size, direction, directions, BLOCK_B, BLOCK_H, DIVISOR
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
            if grad_reset_states is not None:
                accumulate(grad_reset_states, where_or_zero(flag, d), plane, at, inside)
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
            i, window, before, first, after, result, reset_states, lengths, reset, steps, batch, size, rows, units,
            present, kept, previous, next, directions, direction, backwards, work,
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
    cell: tl.constexpr, x, product, bias, saved, before, first, after, parameters, reset_states, lengths, reset,
    start, stop, steps, batch, size, window,
    gates: tl.constexpr, recurrent: tl.constexpr, rows_of_parameters: tl.constexpr, kept: tl.constexpr,
    previous: tl.constexpr, next: tl.constexpr, directions: tl.constexpr, reverse: tl.constexpr,
    BLOCK_B: tl.constexpr, BLOCK_H: tl.constexpr, DIVISOR: tl.constexpr,
):  # fmt: skip
    """Recompute what the cell's forward saves, for all steps of a window in parallel: saved (count, window, B, D·H).
    Other arguments are as in `backward`. The grid's first axis has the tiles of the batch once for each step."""
    work: tl.constexpr = tl.float64 if x.dtype.element_ty == tl.float64 else tl.float32
    direction = tl.program_id(2) if directions > 1 else 0
    backwards = direction != reverse
    size = size // DIVISOR * DIVISOR  # the same value; tells the compiler that DIVISOR divides it, for wide loads
    tiles = tl.cdiv(batch, BLOCK_B)
    i = start + tl.program_id(0) // tiles
    rows, units, present, inside, _, plane, everywhere = place_of_tile(
        tl.program_id(0) % tiles * BLOCK_B, tl.where(i < stop, batch, 0), tl.program_id(1) * BLOCK_H,
        batch, size, direction, directions, BLOCK_B, BLOCK_H,
    )  # fmt: skip
    p = load(parameters, rows_of_parameters, size, direction * (rows_of_parameters * size) + everywhere, inside, work)
    s, _ = states_around(
        i, window, before, first, after, None, reset_states, lengths, reset, steps, batch, size, rows, units, present,
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
    """What the cell's forward saves at step i, one of the window's steps, which x and product (D, window, B, R·H)
    hold."""
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
