"""Where ReLU's gradient jumps. On which side of zero a sum lies that is nearly zero is a matter of rounding.

One such sum among tens of thousands makes a gradient a thousand times as far from float64's, whoever computed it.
"""

import torch
from torch.nn.functional import linear

CELLS = ("rnn_relu", "indrnn", "ligru")
"""With ReLU in their equations."""
CLEAR = 64
"""Of float32's epsilon: a sum that is further from zero is on the same side in whatever order it was made."""
SPARE = 4
"""Of so many times the sequences that are wanted there are enough without a sum near zero."""


def on_the_sides_of(output, module, input, hx):
    """Output and final state of one layer of ReLUs, where each is on that side of its kink that it has in an output."""
    sides = output.detach().chunk(2 if module.bidirectional else 1, -1)
    found = [_direction(module, k, input, hx[0], own > 0)[0] for k, own in enumerate(sides)]
    return torch.cat(found, -1), torch.stack([own[0 if k else -1] for k, own in enumerate(found)])


@torch.no_grad()
def clear_sequences(module, input, h_0):
    """The numbers of the sequences of which no sum, in any layer, lies near zero."""
    directions = 2 if module.bidirectional else 1
    clear = torch.ones(input.shape[1], dtype=torch.bool, device=input.device)
    for first in range(0, module.num_layers * directions, directions):
        found = [_direction(module, k, input, h_0) for k in range(first, first + directions)]
        input = torch.cat([output for output, _ in found], -1)
        for _, sums in found:
            clear &= (sums.abs() > CLEAR * torch.finfo(torch.float32).eps).all(-1).all(0)
    return clear.nonzero().flatten()


def _direction(module, k, input, h_0, sides=None):
    """The k-th direction, in the order of the module's parameters → output and what ReLU is given, both (T, N, H).

    ``sides`` (T, N, H) says what passes, in the place of the signs.
    """
    w_ih, w_hh, b_ih, b_hh = list(module.parameters())[4 * k : 4 * k + 4]
    gates_x, h = linear(input, w_ih, b_ih), h_0[k]
    outputs, sums = [None] * len(input), [None] * len(input)
    steps = range(len(input))
    for t in reversed(steps) if module.bidirectional and k % 2 else steps:
        sums[t] = gates_x[t] + linear(h, w_hh, b_hh)
        h = outputs[t] = sums[t] * (sums[t] > 0 if sides is None else sides[t])
    return torch.stack(outputs), torch.stack(sums)
