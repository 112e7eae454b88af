"""The engine of ``backend="triton-persistent"``: the persistent plan for every layer that it can run, even where
another plan is faster. `wavefront` decides how many layers of a stack run in one launch."""

from types import ModuleType

from torch import Tensor

from ...request.recurrence import Backward, Recurrence
from .host import printed_kernels
from .plans import staged_persistent, wavefront
from .plans.shape import Shape
from .plans.wavefront import at_once
from .prepared import stack
from .prepared.stack import led_maker as output_maker
from .prepared.stack import maker

__all__ = [
    "Inference",
    "Training",
    "at_once",
    "backward",
    "forward",
    "maker",
    "output_maker",
    "saved_like",
    "seconds",
    "why_not",
    "why_not_backward",
]


def _plan(layer: Shape | Recurrence) -> ModuleType:
    return staged_persistent if printed_kernels.is_staged(layer.cell, layer.kept) else wavefront


def why_not(shape: Shape) -> str | None:
    """Why the persistent plan cannot run a layer, or None."""
    return _plan(shape).why_not(shape)


def why_not_backward(shape: Shape) -> str | None:
    """Why the persistent plan cannot run a layer's backward, which the stepwise plan then runs, or None."""
    return _plan(shape).why_not_backward(shape)


def seconds(shape: Shape, gradients: bool = False) -> float | None:
    """Seconds of a layer by the plan's model, or None where the plan cannot run it."""
    return _plan(shape).seconds(shape, gradients)


def saved_like(q: Recurrence) -> list[Tensor]:
    """Empty tensors of the shapes that `forward` saves."""
    return _plan(q).saved_like(q)


def forward(q: Recurrence, save: bool) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Run a layer or a stack. Returns output (T, B, D·H), final states, tensors that backward needs."""
    return _plan(q).forward(q, save)


def backward(q: Recurrence, given: Backward) -> list[Tensor | None]:
    """The gradients of ``q.differentiable()``, in its order; a gradient that is not wanted may be None."""
    return _plan(q).backward(q, given)


class Inference(stack.Inference):
    by_name = True


class Training(stack.Training):
    by_name = True
