"""The Triton engine as `seqcells.ops` calls it: each layer by the plan for its shape."""

from collections.abc import Sequence

from torch import Tensor

from ...recurrence import Recurrence
from .plan import Shape, plan
from .products import linear
from .stepwise import saved_like  # any plan's: it is asked for of shapes that torch.compile has not decided

__all__ = ["backward", "forward", "linear", "saved_like"]


def forward(q: Recurrence, save: bool) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """A layer → output (T, B, D·P), final states, what backward needs."""
    return plan(Shape.of(q)).module.forward(q, save)


def backward(
    q: Recurrence, output: Tensor, saved: Sequence[Tensor], grad_output: Tensor, grad_final: Sequence[Tensor]
) -> list[Tensor]:
    """The gradients of ``q.differentiable()``, in its order."""
    return plan(Shape.of(q)).module.backward(q, output, saved, grad_output, grad_final)
