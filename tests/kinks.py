"""Avoids the jump of ReLU's gradient. For a sum near zero, rounding decides on which side of zero it lies.

One such sum among tens of thousands makes a gradient a thousand times as far from float64's, in any implementation.
"""

import torch
from torch.nn.functional import linear

CELLS = ("rnn_relu", "indrnn", "ligru")
"""The cells with ReLU in their equations."""
CLEAR = 64
"""A multiple of float32's epsilon: a sum further from zero keeps its sign in any order of summation."""
SPARE = 4
"""The factor of sequences to draw, so that enough of them have no sum near zero."""


def on_the_sides_of(output, module, input, hx):
    """Output and final state of one ReLU layer, in which each ReLU takes the side of its kink that it has in
    ``output``."""
    sides = output.detach().chunk(2 if module.bidirectional else 1, -1)
    found = [_direction(module, k, input, hx[0], own > 0)[0] for k, own in enumerate(sides)]
    return torch.cat(found, -1), torch.stack([own[0 if k else -1] for k, own in enumerate(found)])


@torch.no_grad()
def clear_sequences(module, input, h_0):
    """The indices of the sequences without a sum near zero in any layer."""
    directions = 2 if module.bidirectional else 1
    clear = torch.ones(input.shape[1], dtype=torch.bool, device=input.device)
    for first in range(0, module.num_layers * directions, directions):
        found = [_direction(module, k, input, h_0) for k in range(first, first + directions)]
        input = torch.cat([output for output, _ in found], -1)
        for _, sums in found:
            clear &= (sums.abs() > CLEAR * torch.finfo(torch.float32).eps).all(-1).all(0)
    return clear.nonzero().flatten()


def _direction(module, k, input, h_0, sides=None):
    """Run the k-th direction, in the order of the module's parameters.

    Returns the output and the input of ReLU, both (T, N, H). ``sides`` (T, N, H) decides what ReLU passes, in place of
    the signs.
    """
    w_ih, w_hh, b_ih, b_hh = list(module.parameters())[4 * k : 4 * k + 4]
    gates_x, h = linear(input, w_ih, b_ih), h_0[k]
    outputs, sums = [None] * len(input), [None] * len(input)
    steps = range(len(input))
    for t in reversed(steps) if module.bidirectional and k % 2 else steps:
        sums[t] = gates_x[t] + linear(h, w_hh, b_hh)
        h = outputs[t] = sums[t] * (sums[t] > 0 if sides is None else sides[t])
    return torch.stack(outputs), torch.stack(sums)
