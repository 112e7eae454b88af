"""Prepared calls of torch's own operator."""

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
"""A function from a module's parameters to the tensors that a call reads as weights, in the order it reads them."""


class Delegated(NamedTuple):
    """A prepared call of torch's operator: later calls may differ only in the addresses and values of their tensors.

    Autograd differentiates torch's operator itself.
    """

    order: Order
    operator: torch_ops.Run
    zeros: Callable[[], Sequence[Tensor]]
    """Makes the initial states of a call that is given none."""
    axes: tuple[int, int] | None
    """For unbatched calls, the places where the batch axis is missing in the input and in the states. Else None."""
    leading: Call | None
    """The call, if torch's operator was chosen because it is estimated faster than our kernels; else None."""

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
        """The prepared call for a call without dropout, or None if the call cannot be prepared.

        The grad mode must be the grad mode of the call.

        Args:
            order: gives the call's weights. The weights must be parameters, and no transform or trace may be active.
            asked: the backend that the module asks for.
            input, states: (T, B, features), and (L·D, B, ·) each. Only sizes, dtypes and devices of the tensors count.
            weights: L·D records, one for each layer and direction.
            final: final states as the module returns them, without a batch axis if its input has none.
            batch_first: whether the layout of the module's input is (B, T, features).
            training: whether the module is in training mode.
        """
        step, first = call.form == "step", weights[0]
        if step and (first.bias_ih is None) != (first.bias_hh is None):
            return None  # the operator could not tell which of the two biases is given
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

    def still_valid(self, parameters: Sequence[Tensor]) -> bool:
        """Whether torch's operator would still be chosen. New tables of seconds may have been loaded meanwhile."""
        return self.leading is None or estimates.leader(self.leading).backend == "torch"

    def __call__(
        self, input: Tensor, states: Sequence[Tensor], streams: Sequence[Tensor], parameters: Sequence[Tensor]
    ) -> tuple[Tensor, Sequence[Tensor]]:
        """Output and final states. Empty ``states`` stand for zeros; torch's cells read no ``streams``."""
        states, weights = states or self.zeros(), self.order(parameters)
        if self.axes is None:
            return self.operator(states, weights, input)
        of_input, of_states = self.axes
        given = [state.unsqueeze(of_states) for state in states], weights, input.unsqueeze(of_input)
        output, final = self.operator(*given)
        return output.squeeze(of_input), [state.squeeze(of_states) for state in final]


def _zeros_like(states: Sequence[Tensor]) -> Callable[[], Sequence[Tensor]]:
    """A function that makes zeros of the states' sizes. On a CPU it returns the same tensors each time.

    The CPU tensors never reach a caller who could write to them. On other devices each call makes new zeros, as
    torch.nn does: on the CUDA stream of that call, or, in a captured graph, in the graph's own memory.
    """
    makers = [partial(torch.zeros, state.shape, dtype=state.dtype, device=state.device) for state in states]

    def make() -> Sequence[Tensor]:
        return [maker() for maker in makers]

    if states[0].device.type != "cpu":
        return make
    with torch.inference_mode(False):  # autograd cannot save inference tensors
        kept = make()
    return lambda: kept
