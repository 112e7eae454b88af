"""The record of a recurrent layer that operators and engines take, or of several layers that an engine runs at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Generic

import torch
from torch import Tensor
from typing_extensions import NamedTuple

from ..cells import Cell
from ..system.untraced import constant
from .weights import Other, T, Weights


class Recurrence(NamedTuple, Generic[T]):
    """A recurrent layer with its tensors.

    Letters: T time steps, B sequences, D directions (one or two), G gates, H hidden units. P is the number of units of
    the carried hidden state, which is H without a projection.

    * ``gates_x``: (T, B, D·G·H), the projected input, or None;
    * ``input``: (T, B, features), or None. It replaces ``gates_x``, which the engine then makes by the weights;
    * ``states``: in the order of ``cell.states``. The first is (D, B, P), the next are (D, B, H), or as the cell says;
    * ``weights``: one record for each direction;
    * ``lengths``: (B,) integers, ``reset``: (T, B) bool, or None. Both directions share them;
    * ``reset_states``: shaped as ``states``, or None for zeros;
    * ``reverse``: whether the only direction, or the first of two, goes from the last step to the first;
    * ``streams``: further inputs of `step` by name: (D, …), where … are the axes that the cell declares. A stream named
      ``input`` exists only beside ``gates_x``;
    * ``kept``: the names of values that are kept for each step, see `seqcells.derive.named_values`.

    The results are the output (T, B, D·P), the final states, shaped as ``states``, and the kept values, (T, B, D·size)
    each. Output and kept values are zero past a sequence's end.

    With ``stacked``, the axis D counts stacked layers instead of directions. No layer is projected or goes backwards.
    ``gates_x`` (T, B, G·H) or ``input`` belongs to the lowest layer, the output to the highest. All layers but the
    lowest use their input weights in any case.
    """

    cell: type[Cell]
    gates_x: T | None
    states: Sequence[T]
    weights: Sequence[Weights[T]]
    lengths: Tensor | None = None
    reset: Tensor | None = None
    reset_states: Sequence[T] | None = None
    reverse: bool = False
    stacked: bool = False
    input: T | None = None
    streams: Mapping[str, T] = MappingProxyType({})
    kept: tuple[str, ...] = ()

    @property
    def outside(self) -> T:
        """The input, or ``gates_x`` if the layer has no input."""
        # Exactly one of the two is a tensor, which the types do not express.
        return self.gates_x if self.input is None else self.input  # pyright: ignore[reportReturnType]

    @property
    def hidden(self: Recurrence) -> int:
        """H, from the last state of size H, else from the size of the gates."""
        first = self.weights[0]
        if first.hr is not None:
            return first.hr.shape[-1]
        sizes = zip(self.cell.state_sizes.values(), self.states, strict=True)
        found = [state.shape[-1] for size, state in sizes if size == "H"]
        if found:
            return found[-1]
        if self.input is not None and first.ih is not None:
            return first.ih.shape[0] // len(self.cell.gates)
        return self.outside.shape[-1] // len(self.weights) // len(self.cell.gates)

    @property
    def sizes(self: Recurrence) -> dict[str, int]:
        """Sizes by letter. ``""`` has size 1, one number for each sequence. F is missing if no tensor has that size."""
        return self.cell.sizes_by_letter(self.hidden) | self._features() | {"": 1}

    def _features(self: Recurrence) -> dict[str, int]:
        if self.input is not None:
            return {"F": self.input.shape[-1]}
        given = [(axes, self.streams[name]) for name, axes in self.cell.streams.items() if name in self.streams]
        given += zip(self.cell.state_sizes.values(), self.states, strict=False)
        return next(({"F": tensor.shape[-1]} for axes, tensor in given if axes.endswith("F")), {})

    @property
    def output(self) -> str:
        """The name of the value that is returned for all time steps."""
        return self.cell.output or self.cell.states[0]

    def width(self: Recurrence, name: str) -> int:
        """The number of units of the named value, in one direction."""
        if name == self.cell.states[0]:
            return self.states[0].shape[-1]
        return self.sizes[letters_of(self.cell, name)[name]]

    def shapes(self: Recurrence) -> list[tuple[int, ...]]:
        """The shapes of the results: output, final states, kept values."""
        (steps, batch), sides = self.outside.shape[:2], 1 if self.stacked else len(self.weights)
        output, *kept = ((steps, batch, sides * self.width(name)) for name in (self.output, *self.kept))
        return [output, *(tuple(state.shape) for state in self.states), *kept]

    @property
    def result_count(self) -> int:
        """The number of results."""
        return 1 + len(self.states) + len(self.kept)

    @property
    def input_weights(self: Recurrence) -> tuple[Tensor | None, Tensor | None]:
        """The weight and bias of the projection to ``gates_x``: weight_ih and bias_ih of all directions, concatenated.

        Both are None for a cell without gates. For stacked layers they are the lowest layer's.
        """
        first, *others = self.weights[:1] if self.stacked else self.weights
        if not others or first.ih is None:
            return first.ih, first.bias_ih
        weights = [w.ih for w in self.weights if w.ih is not None]
        biases = [] if first.bias_ih is None else [w.bias_ih for w in self.weights if w.bias_ih is not None]
        return torch.cat(weights), torch.cat(biases) if biases else None

    def projected(self: Recurrence, gates_x: Tensor) -> Recurrence:
        """The recurrence with ``gates_x`` in the place of the input, which becomes a stream if the cell reads it."""
        streams = {"input": self.outside.expand(len(self.weights), *self.outside.shape), **self.streams}
        streams = {name: streams[name] for name in self.cell.streams}
        return self._replace(gates_x=gates_x, input=None, streams=streams)

    def reversed(self, direction: int) -> bool:
        """Whether a direction goes from the last step to the first."""
        return self.reverse != (direction == 1 and not self.stacked)

    @property
    def used(self) -> list[Weights[T]]:
        """The weights in use. Input weights are left out if ``gates_x`` is given."""
        given = self.input is None
        return [w.recurrent if given and not (self.stacked and k) else w for k, w in enumerate(self.weights)]

    def differentiable(self) -> list[T]:
        """The tensors that can have gradients, in the order that an engine's ``backward`` returns them."""
        weights = [w for each in self.used for w in each.present()]
        return [self.outside, *self.states, *weights, *(self.reset_states or ()), *self.streams.values()]

    def replaced(self, flat: Sequence[Other]) -> Recurrence[Other]:
        """The recurrence with other values in the places of the differentiable tensors."""
        rest = iter(flat)
        outside, states = next(rest), [next(rest) for _ in self.states]
        weights = tuple(w.replaced([next(rest) for _ in w.present()]) for w in self.used)
        reset_states = None if self.reset_states is None else [next(rest) for _ in self.reset_states]
        streams = dict(zip(self.streams, rest, strict=True))
        gates_x, input = (outside, None) if self.input is None else (None, outside)
        rest_of_all = self.lengths, self.reset, reset_states, self.reverse, self.stacked
        return Recurrence(self.cell, gates_x, states, weights, *rest_of_all, input, streams, self.kept)


@constant
def letters_of(cell: type[Cell], names: str) -> dict[str, str]:
    """The letters of the sizes of a step's values. ``names`` has spaces between names; see `derive.named_values`.

    Raises:
        ValueError: the cell has no such value.
    """
    wanted = names.split()
    if all(name in cell.state_sizes for name in wanted):  # sizes of states are known without a derivation
        return cell.state_sizes
    from ..derive.named_values import sizes_of

    return sizes_of(cell, wanted)


def output_units(cell: type[Cell], hidden_size: int, features: int) -> int:
    """The number of units of a cell's output, for the given numbers of hidden units and input features."""
    output = cell.output or cell.states[0]
    return (cell.sizes_by_letter(hidden_size) | {"F": features, "": 1})[letters_of(cell, output)[output]]


class Backward(NamedTuple):
    """The arguments of an engine's backward besides the `Recurrence`.

    * ``output``, ``saved``: the tensors that the engine's forward returned;
    * ``grad_output``, ``grad_final``: the gradients of the output, and of the other results;
    * ``wanted``: a `Recurrence` with bools in the places of the differentiable tensors: whether a gradient is wanted.
    """

    output: Tensor
    saved: Sequence[Tensor]
    grad_output: Tensor
    grad_final: Sequence[Tensor]
    wanted: Recurrence[bool]
