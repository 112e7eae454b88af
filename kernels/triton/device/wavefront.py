"""What passes between the layers of a stack that runs as a wavefront. A layer is at step t while the layer above it is
at t - 1.

Layers take the place of directions, in grids and in memory. Outputs are (T, B, L·H) and grad_x is (T, B, L·G·H). But x
(T, B, G·H) and grad_output (T, B, H) come from outside the stack. A layer reads its input where the layer below writes
its output. That array holds all steps, so a layer never waits for the layer above and may run ahead. Backward works the
other way round. A program reads a part from outside and a part from the neighbouring layer, and adds both. The part
that its layer does not have is masked to 0.
"""

import triton
import triton.language as tl

from . import barrier, resident
from .tiles import add, load


@triton.jit
def neighbour(counter, layer, step: tl.constexpr, layers: tl.constexpr):
    """Find the layer that is ``step`` (-1 or 1) away from ``layer``, whose counter is ``counter``.

    Returns the index in weight_ih of the weight between the two, the neighbour's counter, and 1 or 0: whether the
    neighbour exists. If it does not, the index is the nearest one, and the counter is the layer's own.
    """
    there = ((layer + step >= 0) & (layer + step < layers)).to(tl.int32)
    pair = tl.minimum(tl.maximum(layer + min(step, 0), 0), layers - 2)
    return pair.to(tl.int64), counter + there * step * barrier.APART, there


@triton.jit
def from_below(
    t, x, held, bias, output, counter, target, patience, there, layer, first_row, rows, units, stop, batch, size,
    gates: tl.constexpr, layers: tl.constexpr, work: tl.constexpr, precision: tl.constexpr,
    BLOCK_B: tl.constexpr, BETWEEN: tl.constexpr, WIDTH: tl.constexpr, SPLIT: tl.constexpr,
):  # fmt: skip
    """The input's part of step t, and the patience left. It is W_ih h + b_ih of the layer below, after a wait for that
    layer's counter. The lowest layer reads x instead."""
    outside = (rows < stop * (1 - there)) & (units < size)
    xs = load(x, gates, size, (t * batch + rows) * (gates * size) + units, outside, work)
    patience = barrier.wait(counter, 1, target * there, patience)
    below = output + t * batch * (layers * size) + (layer - 1) * size
    product = resident.product_of_rows(
        below,
        first_row,
        stop * there,
        layers * size,
        size,
        held,
        gates,
        precision,
        work,
        BLOCK_B,
        BETWEEN,
        WIDTH,
        SPLIT,
    )
    return add(add(xs, product), bias), patience


@triton.jit
def from_above(
    t, grad_output, held, grad_x, counter, target, patience, there, layer, first_row, rows, units, stop, batch, size,
    gates: tl.constexpr, layers: tl.constexpr, work: tl.constexpr, precision: tl.constexpr,
    BLOCK_B: tl.constexpr, BETWEEN: tl.constexpr, WIDTH: tl.constexpr, SPLIT: tl.constexpr,
):  # fmt: skip
    """The gradient of the output of step t, and the patience left. It is grad_x W_ih of the layer above, after a wait;
    the highest layer reads grad_output instead."""
    t = t.to(tl.int64)
    outside = (rows < stop * (1 - there)) & (units < size)
    g = load(grad_output, 1, 0, (t * batch + rows) * size + units, outside, work)
    patience = barrier.wait(counter, 1, target * there, patience)
    pitch = layers * gates * size
    above = grad_x + t * batch * pitch + (layer + 1) * gates * size
    product = resident.product_of_rows(
        above, first_row, stop * there, pitch, size, held, 1, precision, work, BLOCK_B, BETWEEN, WIDTH, SPLIT
    )
    return add(g, product), patience
