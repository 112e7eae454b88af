"""One recurrent layer as the operators and engines take it, or several where an engine runs them at once."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .cells import Cell
from .weights import Weights


class Recurrence(NamedTuple):
    """A layer; T steps, B sequences, D directions (one or two), G gates, H hidden units, P of the hidden state that is
    carried (H without a projection).

    * ``gates_x``: (T, B, D·G·H), the input projected;
    * ``input``: (T, B, features), or None: in the place of ``gates_x``, which is then to be made of it by the weights;
    * ``states``: in the order of ``cell.states``: (D, B, P), the others (D, B, H);
    * ``weights``: those of each direction;
    * ``lengths``: (B,) integers, ``reset``: (T, B) bool, or None: the same for both directions;
    * ``reset_states``: shaped as ``states``, or None for zeros;
    * ``reverse``: whether the only direction, or the first of two, goes from the last step to the first.

    Its results are the output (T, B, D·P) and the final states, shaped as ``states``.

    With ``stacked`` there are layers, one upon the other, in the place of directions; none is projected or goes
    backwards. ``gates_x`` (T, B, G·H) or ``input`` is the lowest one's, the output the highest one's, and of the
    weights of all but the lowest those of the input are used in any case.
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
    input: Tensor | None = None

    @property
    def outside(self) -> Tensor:
        """What comes from outside: the input, or its projection."""
        return self.gates_x if self.input is None else self.input

    @property
    def hidden(self) -> int:
        """H."""
        hr = self.weights[0].hr
        return self.states[-1].shape[-1] if hr is None else hr.shape[-1]

    @property
    def input_weights(self) -> tuple[Tensor, Tensor | None]:
        """What makes ``gates_x`` of the input: weight_ih and bias_ih of all directions, one below the other."""
        first, *others = self.weights[:1] if self.stacked else self.weights
        if not others:
            return first.ih, first.bias_ih
        bias = None if first.bias_ih is None else torch.cat([first.bias_ih, *(w.bias_ih for w in others)])
        return torch.cat([first.ih, *(w.ih for w in others)]), bias

    def reversed(self, direction: int) -> bool:
        """Whether a direction goes from the last step to the first."""
        return self.reverse != (direction == 1 and not self.stacked)

    @property
    def used(self) -> list[Weights]:
        """The weights, without those that would make a ``gates_x`` which is given."""
        given = self.input is None
        return [w.recurrent if given and not (self.stacked and k) else w for k, w in enumerate(self.weights)]

    def differentiable(self) -> list[Tensor]:
        """The tensors that have gradients, in the order of an engine's ``backward``."""
        weights = [w for each in self.used for w in each.present()]
        return [self.outside, *self.states, *weights, *(self.reset_states or ())]

    def replaced(self, flat: Sequence[Tensor]) -> "Recurrence":
        """The same, with other tensors in the places of the differentiable ones."""
        rest = iter(flat)
        outside, states = next(rest), [next(rest) for _ in self.states]
        weights = tuple(w.replaced([next(rest) for _ in w.present()]) for w in self.used)
        reset_states = None if self.reset_states is None else list(rest)
        own = {"gates_x" if self.input is None else "input": outside}
        return self._replace(**own, states=states, weights=weights, reset_states=reset_states)


class Backward(NamedTuple):
    """What the backward of a `Recurrence` is given besides it.

    * ``output``, ``saved``: forward's, as an engine returned them;
    * ``grad_output``, ``grad_final``: the gradients of output and final states;
    * ``wanted``: a `Recurrence` with a bool in the place of each differentiable tensor: whether its gradient is wanted.
    """

    output: Tensor
    saved: Sequence[Tensor]
    grad_output: Tensor
    grad_final: Sequence[Tensor]
    wanted: Recurrence
