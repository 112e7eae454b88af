"""The kernel of a single time step: both products, the gates and the states in one launch, for any cell.

A program has a tile of rows and hidden units in one direction. Shapes, for D directions: input (B, F), weight_ih (D,
G·H, F), bias_ih (D, G·H), or instead of these x (B, D·G·H), the projected input; weight (D, R·H, H); bias (D, R·H);
parameters (D, rows, H). Each state is a tensor (D, B, H); initial is None for zeros. Output is (B, D·H), as is each
array kept for backward; several of these are (count, B, D·H). Everything but products is computed in float32, or in
float64 where the states are float64.
"""

import triton
import triton.language as tl

from .tiles import add, load, load_states, product_of_rows, store, store_each, store_some, tile_of_step


@triton.jit(do_not_specialize=["batch", "size", "features"])
def forward(
    cell: tl.constexpr, x, input, weight_ih, bias_ih, weight, bias, initial, parameters, output, final, saved, after,
    batch, size, features,
    gates: tl.constexpr, recurrent: tl.constexpr, rows_of_parameters: tl.constexpr, kept: tl.constexpr,
    directions: tl.constexpr, precision: tl.constexpr,
    BLOCK_B: tl.constexpr, BLOCK_H: tl.constexpr, DIVISOR: tl.constexpr,
    ALIGNED: tl.constexpr, ALIGNED_FEATURES: tl.constexpr, WIDTH: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """Run the step. Optional outputs: output, a copy of the first state; saved and after, as in `gates.forward`."""
    work: tl.constexpr = tl.float64 if final[0].dtype.element_ty == tl.float64 else tl.float32
    direction = tl.program_id(2) if directions > 1 else 0
    size, rows, units, present, inside, at, plane, everywhere = tile_of_step(
        batch, size, direction, directions, BLOCK_B, BLOCK_H, DIVISOR
    )
    place = (rows * directions + direction) * size + units
    s = load_states(initial, len(kept), at, inside, work)
    p = load(parameters, rows_of_parameters, size, direction * (rows_of_parameters * size) + everywhere, inside, work)
    if input is None:
        given = load(x, gates, size, (rows * directions + direction) * (gates * size) + units, inside, work)
    else:
        depth = features // ALIGNED_FEATURES * ALIGNED_FEATURES
        own = weight_ih + direction * gates * size * depth
        given = product_of_rows(
            input, own, gates, size, depth, rows, units, present, work, precision, BLOCK_B, BLOCK_H, WIDTH, DOT
        )
        if bias_ih is not None:
            given = add(given, load(bias_ih, gates, size, direction * (gates * size) + everywhere, inside, work))
    r = ()
    if recurrent > 0:
        if initial is None:
            r = load_states(None, recurrent, at, inside, work)
        else:
            before, depth = initial[0] + direction * batch * size, size // ALIGNED * ALIGNED
            own = weight + direction * recurrent * size * size
            r = product_of_rows(
                before, own, recurrent, size, depth, rows, units, present, work, precision, BLOCK_B, BLOCK_H, WIDTH, DOT
            )
        if bias is not None:
            r = add(r, load(bias, recurrent, size, direction * (recurrent * size) + everywhere, inside, work))
    n, values = cell(given, r, s, p)
    if output is not None:
        tl.store(output + place, n[0], inside)
    store_each(final, n, at, inside)
    if saved is not None:
        store(saved, values, plane, place, inside)
    if after is not None:
        store_some(after, n, kept, plane, place, inside)
