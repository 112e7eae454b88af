"""One recurrent layer as the operators and engines take it, or several where an engine runs them at once."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from .cells import Cell
from .weights import Weights


class Recurrence(NamedTuple):
    """A layer, its input projected; T steps, B sequences, D directions (one or two), G gates, H hidden units, P of the
    hidden state that is carried (H without a projection).

    * ``gates_x``: (T, B, D·G·H), or None for an engine that projects the input by itself;
    * ``states``: in the order of ``cell.states``: (D, B, P), the others (D, B, H);
    * ``weights``: those of each direction;
    * ``lengths``: (B,) integers, ``reset``: (T, B) bool, or None: the same for both directions;
    * ``reset_states``: shaped as ``states``, or None for zeros;
    * ``reverse``: whether the only direction, or the first of two, goes from the last step to the first.

    Its results are the output (T, B, D·P) and the final states, shaped as ``states``.

    With ``stacked`` there are layers, one upon the other, in the place of directions; none is projected or goes
    backwards. ``gates_x`` (T, B, G·H) is the lowest one's, the output the highest one's, and of the weights of all but
    the lowest those of the input are used too.
    """

    cell: type[Cell]
    gates_x: Tensor | None
    states: Sequence[Tensor]
    weights: Sequence[Weights]
    lengths: Tensor | None = None
    reset: Tensor | None = None
    reset_states: Sequence[Tensor] | None = None
    reverse: bool = False
    stacked: bool = False

    def reversed(self, direction: int) -> bool:
        """Whether a direction goes from the last step to the first."""
        return self.reverse != (direction == 1 and not self.stacked)

    @property
    def used(self) -> list[Weights]:
        """Of the weights those that are used inside the time loop."""
        return [w if self.stacked and k else w.recurrent for k, w in enumerate(self.weights)]

    def differentiable(self) -> list[Tensor]:
        """The tensors that have gradients, in the order of an engine's ``backward``."""
        weights = [w for each in self.used for w in each.present()]
        return [self.gates_x, *self.states, *weights, *(self.reset_states or ())]

    def replaced(self, flat: Sequence[Tensor]) -> "Recurrence":
        """The same, with other tensors in the places of the differentiable ones."""
        rest = iter(flat)
        gates_x, states = next(rest), [next(rest) for _ in self.states]
        weights = tuple(w.replaced([next(rest) for _ in w.present()]) for w in self.used)
        reset_states = None if self.reset_states is None else list(rest)
        return self._replace(gates_x=gates_x, states=states, weights=weights, reset_states=reset_states)
