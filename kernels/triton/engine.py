"""The Triton engine as `seqcells.call.execute` calls it: each layer by the plan for its shape, and stacks by a
wavefront where a layer's plan is the persistent one."""

from torch import Tensor

from ...request.call import Call
from ...request.recurrence import Backward, Recurrence
from .plans import wavefront
from .plans.plan import Plan, plan
from .plans.shape import Shape
from .plans.stepwise import saved_like  # any plan's: it is asked for of shapes that torch.compile has not decided
from .prepared.calls import Inference, Training, maker, output_maker

__all__ = ["Inference", "Training", "at_once", "backward", "forward", "maker", "output_maker", "saved_like"]


def at_once(call: Call, gradients: bool) -> int:
    """How many layers of a stack run at once."""
    return wavefront.at_once(call, gradients) if plan(Shape.called(call)).name == "persistent" else 1


def forward(q: Recurrence, save: bool) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """A layer, or a stack → output (T, B, D·P), final states, what backward needs."""
    return _plan(q).module.forward(q, save)


def backward(q: Recurrence, given: Backward) -> list[Tensor | None]:
    """The gradients of ``q.differentiable()``, in its order; those that are not wanted may be None."""
    return _plan(q).module.backward(q, given)


def _plan(q: Recurrence) -> Plan:
    # Only `at_once` makes stacks.
    return Plan("persistent", "a stack") if q.stacked else plan(Shape.of(q))
