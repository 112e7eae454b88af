"""The interface of an engine: a module that runs layers by its own kernels.

An `Engine` has three functions. It may also be a `StackingEngine`, which runs several layers at once, and a
`PreparingEngine`, whose calls can be prepared. `tests/typed/engines.py` checks the engines against these classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor

    from ..request.call import Call
    from ..request.recurrence import Backward, Recurrence


class Engine(Protocol):
    """The three functions that operators call. A `Recurrence` holds either the input or ``gates_x``."""

    def forward(self, q: Recurrence, save: bool, /) -> tuple[Tensor, Sequence[Tensor], Sequence[Tensor]]:
        """Output, the other results, and the tensors that `backward` needs besides results and ``q``. Without
        ``save``, this last list is empty."""
        ...

    def backward(self, q: Recurrence, given: Backward, /) -> Sequence[Tensor | None]:
        """Gradients of ``q.differentiable()``, in the same order. A gradient that is not wanted may be None."""
        ...

    def saved_like(self, q: Recurrence, /) -> Sequence[Tensor]:
        """Empty tensors of the shapes that `forward` saves."""
        ...


@runtime_checkable
class StackingEngine(Protocol):
    """An engine that may run several layers of a stack together, in eager calls only."""

    def at_once(self, call: Call, gradients: bool, /) -> int:
        """How many layers of a stack run together. `Engine.forward` is then given a `Recurrence` that is
        ``stacked``."""
        ...


class PreparedInference(Protocol):
    """A stack's inference, prepared for all calls that differ only in the addresses of their tensors."""

    in_place: bool
    """Whether the engine reads and writes all tensors where they lie. If not, the object is not called."""
    versions: Any
    """The weights' versions for which the engine keeps packed copies, or None."""

    @property
    def packs_weights(self) -> bool:
        """Whether the engine keeps packed copies of the weights."""
        ...

    def __call__(self, *tensors: Tensor | None) -> None:
        """Run the stack. The arguments are the input, streams in the cell's order, initial states (None for zeros),
        final states, each layer's output, and each direction's `present` weights. All are contiguous."""
        ...

    def still_valid(self) -> bool:
        """Whether the same call would be prepared in the same way now."""
        ...


class PreparedTraining(Protocol):
    """A stack's forward and backward, prepared for all calls that differ only in the addresses of their tensors."""

    in_place: bool
    """Whether the engine reads and writes all tensors where they lie. If not, the object is not called."""

    def forward(self, *tensors: Tensor | None) -> Tensor:
        """Run forward. The arguments are the input, streams, initial states (None for zeros), final states, the output
        and the `present` weights. Returns what backward needs besides these tensors."""
        ...

    def backward(
        self, tensors: Sequence[Tensor | None], makers: Sequence[Callable[[], Tensor] | None], as_made: bool, /
    ) -> list[Tensor | None]:
        """Run backward.

        Args:
            tensors: the input, streams, initial states, the output (None if it is not read), what forward returned,
                the gradients of the output and of final states, and the weights.
            makers: for each gradient a function that makes its tensor, or None where the gradient is not wanted.
            as_made: whether the output lies where `PreparingEngine.output_maker` made it.

        Returns:
            The gradients of the input, of initial states, and of weights.
        """
        ...

    def still_valid(self) -> bool:
        """Whether the same call would be prepared in the same way now."""
        ...


@runtime_checkable
class PreparingEngine(Protocol):
    """An engine that can prepare calls."""

    @property
    def Inference(self) -> Callable[[Sequence[Recurrence], Any, bool, bool], PreparedInference]:  # noqa: N802  a class of the module
        """Prepares inference, from the layers (lowest first; only shapes and dtypes count), the weights' versions or
        None, whether the input lies as (B, T, features), and whether initial states are None."""
        ...

    @property
    def Training(  # noqa: N802  a class of the module
        self,
    ) -> Callable[[Sequence[Recurrence], Sequence[Recurrence[bool]], bool, bool, bool], PreparedTraining]:
        """Prepares training, from the layers, the same layers with bools (whether each tensor's gradient is wanted),
        two flags as in `Inference`, and whether backward may read the output."""
        ...

    def maker(self, like: Tensor, /) -> Callable[[], Tensor]:
        """A function that makes an empty tensor like the given one."""
        ...

    def output_maker(self, like: Tensor, steps: int, /) -> Callable[[], Tensor]:
        """A function that makes the tensor for a layer's output in training."""
        ...
