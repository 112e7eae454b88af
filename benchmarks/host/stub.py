"""A call through autograd that does the least: it takes tensors, allocates results and gradients, and computes
nothing."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class Stub(torch.autograd.Function):
    """Takes the tensors of a layer or cell; results and gradients are uninitialized memory."""

    @staticmethod
    def forward(ctx: Any, results: Sequence[tuple[int, ...]], *tensors: Tensor) -> tuple[Tensor, ...]:
        """Allocate the results.

        Args:
            results: their shapes; dtype and device are the first tensor's.
        """
        ctx.set_materialize_grads(False)  # no zero gradients for results that have no gradient
        ctx.save_for_backward(*tensors)
        return tuple([tensors[0].new_empty(shape) for shape in results])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        pairs = zip(ctx.saved_tensors, ctx.needs_input_grad[1:], strict=True)
        return None, *[torch.empty_like(tensor) if wanted else None for tensor, wanted in pairs]
