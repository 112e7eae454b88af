"""The ``torch`` backend: plain calls are handed to torch's own operators, which call cuDNN or oneDNN.

These operators take a whole stack of layers and its input before the projection. So this backend replaces
`seqcells.functional.layers` and `seqcells.functional.step`, not the recurrence of a single layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.jit._trace import is_tracing

from ..request import checks, context, precision
from ..request.weights import Weights
from ..system.untraced import constant
from . import cudnn_weights

if TYPE_CHECKING:
    from ..cells import Cell
    from ..request.call import Call

Run = Callable[..., tuple[Tensor, tuple[Tensor, ...]]]
"""A function that calls torch's operator: (states, weights, input) → output and final states."""

# The name of a cell → torch's operator for layers, torch's operator for a single step.
OPERATORS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "lstm": (torch._VF.lstm, torch._VF.lstm_cell),
    "gru": (torch._VF.gru, torch._VF.gru_cell),
    "rnn_tanh": (torch._VF.rnn_tanh, torch._VF.rnn_tanh_cell),
    "rnn_relu": (torch._VF.rnn_relu, torch._VF.rnn_relu_cell),
}


def why_not(call: Call) -> str | None:
    """Why torch's operators cannot run a call, or None."""
    if call.cell.name not in OPERATORS:
        return f"torch has no operator for the {call.cell.name} cell"
    if call.form == "recurrence":
        return "torch's operators take the layer's input, not its projection gates_x"
    for option in ("lengths", "reset", "keep"):
        if option in call.options:
            return f"torch's operators have no {option}="
    return None


def autocast_dtypes(call: Call, input: Tensor, states: Sequence[Tensor]) -> Sequence[torch.dtype] | None:
    """The dtypes of the final states of torch's operator under autocast; the output has the first state's dtype.

    cuDNN and oneDNN return autocast's dtype, and so do the cells that torch does not have. On a CPU, torch's own loop
    uses that dtype in products alone, and computes states in the wider of both dtypes. The result is None if autocast
    changes nothing.
    """
    dtype = precision.autocast_dtype(input.device)
    if dtype is None or input.dtype == torch.float64:
        return None
    if input.device.type == "cpu":
        kept = torch.promote_types(states[-1].dtype, dtype)
        if call.cell.base.name == "gru":
            return [kept]
        if call.cell.base.name == "lstm" and not _is_by_one_dnn(call, input):
            return [dtype if _is_projected(call) else kept, kept]
    return [dtype] * len(states)


def _is_projected(call: Call) -> bool:
    return "projection" in call.options or "hr" in call.cell.every_product


def _is_by_one_dnn(call: Call, input: Tensor) -> bool:
    """Whether torch's operator calls oneDNN, for an LSTM on a CPU."""
    # torch.export switches oneDNN off while it traces, but exported programs run with oneDNN.
    enabled = torch.backends.mkldnn.enabled or context.is_exporting()
    if call.form == "step" or _is_projected(call) or not enabled:
        return False
    if "packed" in call.options and not call.uniform:
        return False
    return input.dtype == torch.float32 or _one_dnn_has(str(input.dtype))


@constant
def _one_dnn_has(dtype: str) -> bool:
    """Whether oneDNN supports this half-precision dtype on this processor."""
    name = {"torch.bfloat16": "bf16", "torch.float16": "fp16"}[dtype]
    return getattr(torch.ops.mkldnn, f"_is_mkldnn_{name}_supported")()


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
    """All layers and directions, with the arguments of `seqcells.functional.layers`."""
    packed = batch_sizes is not None
    batch = batch_sizes[0] if packed else input.shape[0 if batch_first else 1]
    form = {"num_layers": num_layers, "batch_first": None if packed else batch_first, "batch": batch}
    run = layers_like(cell, input, states, weights, **form, dropout=dropout, training=training)
    flat = [tensor for w in weights for tensor in w.present()]
    return run(states, flat, input, batch_sizes) if packed else run(states, flat, input)


def layers_like(
    cell: type[Cell],
    input: Tensor,
    states: Sequence[Tensor],
    weights: Sequence[Weights],
    *,
    num_layers: int,
    batch_first: bool | None,
    dropout: float,
    training: bool,
    batch: int | Tensor | None = None,
) -> Run:
    """Prepare a function for all calls that are like one call. Only sizes, dtypes and devices of its tensors matter.

    Args:
        batch_first: as in torch.nn; None for a packed input, which has no such axis.
        batch: the number of sequences, which the states are compared with. Default: the states are not checked
        others: as in `seqcells.functional.layers`.

    Returns:
        A function of the states, a flat list of the weights, the input, and for a packed input its batch sizes. It
        returns the output and the final states. It is valid only while grad mode is on or off as now.
    """
    bias, bidirectional, form = weights[0].bias_ih is not None, len(weights) == 2 * num_layers, None
    if not is_tracing():  # under torch.jit.trace sizes are tensors
        features, width, hidden = input.shape[-1], states[0].shape[-1], states[-1].shape[-1]
        _check_sizes(cell, features, states, weights, len(weights) // num_layers, batch)
        if input.device.type == cudnn_weights.DEVICE and not torch.compiler.is_compiling():
            projected = 0 if weights[0].hr is None else width
            sizes = features, hidden, projected, num_layers
            form = cudnn_weights.Form(cell.name.upper(), *sizes, bias, bidirectional)
    if not training:
        # cuDNN keeps values for the backward pass only in training mode. Without dropout both modes compute the same.
        dropout, training = 0.0, torch.is_grad_enabled()
    rest = bias, num_layers, dropout, training, bidirectional, *(() if batch_first is None else (batch_first,))
    return partial(_run, OPERATORS[cell.name][0], form, rest)


def _run(
    operator: Callable[..., Sequence[Tensor]],
    form: cudnn_weights.Form | None,
    rest: tuple[Any, ...],
    states: Sequence[Tensor],
    flat: Sequence[Tensor],
    *data: Tensor,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The operator's output and final states.

    Args:
        form: the form of the layer if its weights have to be in one chunk, else None.
        rest: the operator's arguments after its tensors.
    """
    if form is not None:
        flat = cudnn_weights.together(flat, form)
    # cuDNN's operator raises an error for states that are not contiguous, such as one row of a batch.
    states = [state.contiguous() for state in states]
    output, *final = operator(*data, tuple(states) if len(states) > 1 else states[0], flat, *rest)
    return output, tuple(final)


def _check_sizes(
    cell: type[Cell],
    features: int,
    states: Sequence[Tensor],
    weights: Sequence[Weights],
    directions: int,
    batch: int | Tensor | None,
) -> None:
    """Raise a RuntimeError if sizes do not match; oneDNN would read memory beyond a too small matrix or state."""
    if batch is not None:
        for state in states:
            if state.dim() != 3 or state.shape[0] != len(weights) or state.shape[1] != batch:
                checks.size("hidden", state, (len(weights), int(batch), state.shape[-1]))
    width, hidden = states[0].shape[-1], states[-1].shape[-1]
    rows = len(cell.gates) * hidden
    recurrent, size = (rows, width), (rows, features)
    for k, w in enumerate(weights):
        if k == directions:
            size = rows, directions * width
        if w.ih is None or w.hh is None:
            raise TypeError("expected weight_ih and weight_hh to be tensors, got None")
        if w.ih.shape != size or w.hh.shape != recurrent:
            checks.size("weight_ih", w.ih, size)
            checks.size("weight_hh", w.hh, recurrent)


def step(cell: type[Cell], input: Tensor, states: Sequence[Tensor], weights: Weights) -> tuple[Tensor, ...]:
    """One step of a cell module, with the arguments of `seqcells.functional.step`."""
    flat = weights.ih, weights.hh, weights.bias_ih, weights.bias_hh
    return step_like(cell)(states, flat, input)[1]


def step_like(cell: type[Cell]) -> Run:
    """Like `layers_like`, for a single step.

    The weights of the returned function are two matrices, and two biases or None. Its output is the first new state.
    """
    return partial(_step, OPERATORS[cell.name][1])


def _step(
    operator: Callable[..., Any], states: Sequence[Tensor], flat: Sequence[Tensor | None], input: Tensor
) -> tuple[Tensor, tuple[Tensor, ...]]:
    new = operator(input, tuple(states) if len(states) > 1 else states[0], *flat)
    return (new[0], new) if isinstance(new, tuple) else (new, (new,))
