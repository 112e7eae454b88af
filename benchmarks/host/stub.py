"""The least that a call through autograd takes: tensors in, memory for results and gradients out, nothing computed."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class Stub(torch.autograd.Function):
    """Takes what a layer or cell takes; results and gradients hold whatever their memory held."""

    @staticmethod
    def forward(ctx: Any, results: Sequence[tuple[int, ...]], *tensors: Tensor) -> tuple[Tensor, ...]:
        """
        Args:
            results: their shapes; dtype and device are those of the first tensor.
        """
        ctx.set_materialize_grads(False)  # no zeros for results that nobody asks of
        ctx.save_for_backward(*tensors)
        return tuple([tensors[0].new_empty(shape) for shape in results])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        pairs = zip(ctx.saved_tensors, ctx.needs_input_grad[1:], strict=True)
        return None, *[torch.empty_like(tensor) if wanted else None for tensor, wanted in pairs]
