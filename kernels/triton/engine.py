"""The Triton engine, a `PreparingEngine` and `StackingEngine` of `seqcells.backends.engine`. A layer runs by
the plan for its shape. Where that is the persistent plan, layers of a stack may run as a wavefront."""

from torch import Tensor

from ...request.call import Call
from ...request.recurrence import Backward, Recurrence
from .plans import wavefront
from .plans.plan import Plan, plan
from .plans.shape import Shape
from .plans.stepwise import saved_like  # serves any plan: torch.compile asks before sizes, and so the plan, are known
from .prepared.stack import Inference, Training, maker, output_maker

__all__ = ["Inference", "Training", "at_once", "backward", "forward", "maker", "output_maker", "saved_like"]


def at_once(call: Call, gradients: bool) -> int:
    """How many layers of a stack run in one launch."""
    return wavefront.at_once(call, gradients) if plan(Shape.of_call(call)).name == "persistent" else 1


def forward(q: Recurrence, save: bool) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Run a layer or a stack. Returns output (T, B, D·P), final states, tensors that backward needs."""
    return _plan(q).module.forward(q, save)


def backward(q: Recurrence, given: Backward) -> list[Tensor | None]:
    """The gradients of ``q.differentiable()``, in its order; a gradient that is not wanted may be None."""
    return _plan(q).module.backward(q, given)


def _plan(q: Recurrence) -> Plan:
    # A stack comes only from a call for which `at_once` gave more than one layer.
    return Plan("persistent", "a stack") if q.stacked else plan(Shape.of(q))
