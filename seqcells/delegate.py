"""The ``torch`` backend: plain calls handed to torch's own operators, cuDNN and oneDNN where those win.

They take a whole stack of layers and its unprojected input at once, so this backend stands in for
`seqcells.functional.layers` and `seqcells.functional.step`, not for one recurrence.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .weights import Weights

if TYPE_CHECKING:
    from .cells import Cell
    from .dispatch import Call

# cell → (layers operator, step operator)
OPERATORS = {
    "lstm": (torch._VF.lstm, torch._VF.lstm_cell),
    "gru": (torch._VF.gru, torch._VF.gru_cell),
    "rnn_tanh": (torch._VF.rnn_tanh, torch._VF.rnn_tanh_cell),
    "rnn_relu": (torch._VF.rnn_relu, torch._VF.rnn_relu_cell),
}


def refuses(call: Call) -> str | None:
    """Why torch's operators cannot run a call, or None."""
    if call.cell.name not in OPERATORS:
        return f"torch has no operator for the {call.cell.name} cell"
    if call.form == "recurrence":
        return "torch's operators take the layer's input, not its projection gates_x"
    for option in ("lengths", "reset"):
        if option in call.options:
            return f"torch's operators have no {option}="
    return None


def layers(
    cell: type[Cell],
    input: Tensor,
    states: Sequence[Tensor],
    weights: Sequence[Weights],
    *,
    batch_sizes: Tensor | None,
    num_layers: int,
    batch_first: bool,
    dropout: float,
    training: bool,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """All layers and directions; arguments as `seqcells.functional.layers`."""
    operator = OPERATORS[cell.name][0]
    flat = [tensor for w in weights for tensor in w.present()]
    bias, bidirectional = weights[0].bias_ih is not None, len(weights) == 2 * num_layers
    hx = tuple(states) if len(states) > 1 else states[0]
    if not training:
        # cuDNN keeps what backward needs only in training mode; without dropout the two modes are the same.
        dropout, training = 0.0, torch.is_grad_enabled()
    rest = (bias, num_layers, dropout, training, bidirectional)
    if batch_sizes is not None:
        output, *final = operator(input, batch_sizes, hx, flat, *rest)
    else:
        output, *final = operator(input, hx, flat, *rest, batch_first)
    return output, tuple(final)


def step(cell: type[Cell], input: Tensor, states: Sequence[Tensor], weights: Weights) -> tuple[Tensor, ...]:
    """One step of a cell module; arguments as `seqcells.functional.step`."""
    hx = tuple(states) if len(states) > 1 else states[0]
    new = OPERATORS[cell.name][1](input, hx, weights.ih, weights.hh, weights.bias_ih, weights.bias_hh)
    return new if isinstance(new, tuple) else (new,)
