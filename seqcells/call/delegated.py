"""Calls of torch's operator like the one before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from ..backends import torch_ops, why_not_for
from ..measured import estimates
from ..measured.table import KERNELS
from ..request.call import Call
from ..request.weights import Weights

Order = Callable[[Sequence[Tensor]], Sequence[Tensor]]
"""What gives those of a module's parameters that a call reads, one after the other."""


class Delegated(NamedTuple):
    """How calls of a module are made by torch's operator that differ only in where their tensors lie, and what is in
    them. Gradients are autograd's own."""

    order: Order
    operator: torch_ops.Run
    zeros: Callable[[], Sequence[Tensor]]
    """Makes the states of a call that comes without."""
    axes: tuple[int, int] | None
    """Where a call of a single sequence has no axis of the batch: in its input, and in its states."""
    leading: Call | None
    """What torch's operator runs because it is faster than our kernels; None where that is no question."""

    @staticmethod
    def of(
        order: Order,
        call: Call,
        asked: str,
        input: Tensor,
        states: Sequence[Tensor],
        weights: Sequence[Weights],
        final: Sequence[Tensor],
        batch_first: bool,
        training: bool,
    ) -> Delegated | None:
        """Of a call without dropout, in the grad mode that it was made in.

        Args:
            order: of the weights; of a call whose weights are parameters, and which nobody watches.
            asked: the backend that the module asks for.
            input, states: (T, B, features), (L·D, B, ·) each; of the tensors only sizes, dtypes and devices count.
            weights: L·D of them.
            final: final states as the module gives them, which lack the axis of the batch where its input does.
            batch_first: whether the module's input lies as (B, T, features).
            training: whether the module is in training mode.
        """
        step, first = call.form == "step", weights[0]
        if step and (first.bias_ih is None) != (first.bias_hh is None):
            return None  # one bias alone would be taken for the other
        if step:
            operator, axes = torch_ops.step_like(call.cell), (0, 0)
        else:
            given, layout = (call.cell, input, states, weights), {"num_layers": call.layers, "batch_first": batch_first}
            operator = torch_ops.layers_like(*given, **layout, dropout=0.0, training=training)
            axes = (0 if batch_first else 1), 1
        batched = final[0].dim() == (2 if step else 3)
        kernels = KERNELS.get(call.device.type)
        contested = asked == "auto" and kernels and not why_not_for(call, kernels)
        return Delegated(order, operator, _zeros_like(final), None if batched else axes, call if contested else None)

    def holds(self, parameters: Sequence[Tensor]) -> bool:
        """Whether torch's operator would be chosen now too: there may be new tables."""
        return self.leading is None or estimates.leader(self.leading).backend == "torch"

    def __call__(
        self, input: Tensor, states: Sequence[Tensor], streams: Sequence[Tensor], parameters: Sequence[Tensor]
    ) -> tuple[Tensor, Sequence[Tensor]]:
        """Output and final states. No ``states`` are zeros; torch's cells read no ``streams``."""
        states, weights = states or self.zeros(), self.order(parameters)
        if self.axes is None:
            return self.operator(states, weights, input)
        of_input, of_states = self.axes
        given = [state.unsqueeze(of_states) for state in states], weights, input.unsqueeze(of_input)
        output, final = self.operator(*given)
        return output.squeeze(of_input), [state.squeeze(of_states) for state in final]


def _zeros_like(states: Sequence[Tensor]) -> Callable[[], Sequence[Tensor]]:
    """What makes zeros of the states' sizes: on a CPU always the same, for nobody gets them who could write to them.

    On other devices zeros are new at each call, as torch.nn's are: they are made on that call's stream, and a graph
    that captures the call has them in memory of its own.
    """
    makers = [partial(torch.zeros, state.shape, dtype=state.dtype, device=state.device) for state in states]

    def make() -> Sequence[Tensor]:
        return [maker() for maker in makers]

    if states[0].device.type != "cpu":
        return make
    with torch.inference_mode(False):  # autograd saves no others
        kept = make()
    return lambda: kept
