"""What passes between the layers of a stack, which run as a wavefront: a layer at step t beside the one above at t - 1.

Layers are where a single layer has directions, in grids and in memory: outputs are (T, B, L·H), grad_x (T, B, L·G·H);
but x and grad_output, which come from outside, are (T, B, G·H) and (T, B, H). A layer takes its input from where the
layer below writes its output, which holds all steps: so that one waits for nobody above it, and may run ahead. Backward
it is the other way round. What comes from outside and what comes from a layer are read by all and added; the one or
the other is read where there is such a thing, and 0 elsewhere.
"""

import triton
import triton.language as tl

from . import barrier, resident
from .tiles import add, load


@triton.jit
def neighbour(counter, layer, step: tl.constexpr, layers: tl.constexpr):
    """Of the layer ``step`` away from one with that counter: which of weight_ih is between the two; its counter; and
    whether it is there, 1 or 0. Where it is not, the nearest, and the layer's own."""
    there = ((layer + step >= 0) & (layer + step < layers)).to(tl.int32)
    pair = tl.minimum(tl.maximum(layer + min(step, 0), 0), layers - 2)
    return pair.to(tl.int64), counter + there * step * barrier.APART, there


@triton.jit
def from_below(
    t, x, held, bias, output, counter, target, patience, there, layer, first_row, rows, units, stop, batch, size,
    gates: tl.constexpr, layers: tl.constexpr, work: tl.constexpr, precision: tl.constexpr,
    ROWS: tl.constexpr, BETWEEN: tl.constexpr, WIDTH: tl.constexpr, SPLIT: tl.constexpr,
):  # fmt: skip
    """The input's part of step t: W_ih h + b_ih of the layer below, whose counter is waited for, or the lowest's x."""
    outside = (rows < stop * (1 - there)) & (units < size)
    xs = load(x, gates, size, (t * batch + rows) * (gates * size) + units, outside, work)
    patience = barrier.wait(counter, 1, target * there, patience)
    below = output + t * batch * (layers * size) + (layer - 1) * size
    product = resident.product_of_rows(
        below, first_row, stop * there, layers * size, size, held, gates, precision, work, ROWS, BETWEEN, WIDTH, SPLIT
    )
    return add(add(xs, product), bias), patience


@triton.jit
def from_above(
    t, grad_output, held, grad_x, counter, target, patience, there, layer, first_row, rows, units, stop, batch, size,
    gates: tl.constexpr, layers: tl.constexpr, work: tl.constexpr, precision: tl.constexpr,
    ROWS: tl.constexpr, BETWEEN: tl.constexpr, WIDTH: tl.constexpr, SPLIT: tl.constexpr,
):  # fmt: skip
    """The gradient of the output of step t: grad_x W_ih of the layer above, or the highest's own."""
    t = t.to(tl.int64)
    outside = (rows < stop * (1 - there)) & (units < size)
    g = load(grad_output, 1, 0, (t * batch + rows) * size + units, outside, work)
    patience = barrier.wait(counter, 1, target * there, patience)
    pitch = layers * gates * size
    above = grad_x + t * batch * pitch + (layer + 1) * gates * size
    product = resident.product_of_rows(
        above, first_row, stop * there, pitch, size, held, 1, precision, work, ROWS, BETWEEN, WIDTH, SPLIT
    )
    return add(g, product), patience
