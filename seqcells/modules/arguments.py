"""The arguments of a layer's call: checked as in torch.nn, and laid out as `seqcells.functional` takes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, overload

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from ..request import checks
from ..request.recurrence import output_units
from ..request.streams import Layout
from . import flat_weights
from .cell_modules import COUNT, States
from .weight_lists import Flattened

if TYPE_CHECKING:
    from ..request.keep_argument import Names
    from .static_types import OfStates, S_co

X = TypeVar("X", bound=Tensor | PackedSequence)
"""The type of a call's input and of its output: a tensor or a PackedSequence."""


class Arguments(Flattened):
    """The part of a layer that checks and lays out the arguments of a call."""

    learn_hx: bool = False
    """Whether the initial states are parameters."""
    _own_state = (*Flattened._own_state, "learn_hx")
    _rank_error = "{}: Expected input to be 2D or 3D, got {}D instead"

    if TYPE_CHECKING:

        @property
        def _form_of_states(self) -> States: ...

        @overload
        def __call__(
            self: OfStates[S_co],
            input: X,
            hx: States | None = None,
            *,
            lengths: Any = None,
            reset: Tensor | None = None,
            reset_state: States | None = None,
            keep: tuple[()] = (),
            **streams: Tensor,
        ) -> tuple[X, S_co]: ...

        @overload
        def __call__(
            self: OfStates[S_co],
            input: X,
            hx: States | None = None,
            *,
            lengths: Any = None,
            reset: Tensor | None = None,
            reset_state: States | None = None,
            keep: Names,
            **streams: Tensor,
        ) -> tuple[X, S_co, dict[str, X]]: ...

        @overload
        def __call__(
            self: OfStates[S_co],
            input: X,
            hx: States | None = None,
            *,
            lengths: Any = None,
            reset: Tensor | None = None,
            reset_state: States | None = None,
            keep: Sequence[str],
            **streams: Tensor,
        ) -> tuple[X, S_co] | tuple[X, S_co, dict[str, X]]: ...

        def __call__(self, *args: Any, **kwargs: Any) -> Any: ...

    def check_input(self, input: Tensor, batch_sizes: Tensor | None) -> None:
        """Raise torch.nn's errors if the input has a wrong dtype or size."""
        first = (self._assigned() or [None])[0]
        if first is None:
            name = self._all_weights[0][0]
            first = flat_weights.stored(self, name)
            (first,) = checks.weights([name], [getattr(self, name) if first is None else first])
        checks.input(input, batch_sizes, self.input_size, first.dtype)

    get_expected_hidden_size: Callable[..., tuple[int, int, int]] = nn.RNNBase.get_expected_hidden_size
    check_hidden_size: Callable[..., None] = nn.RNNBase.check_hidden_size

    def check_forward_args(self, input: Tensor, hidden: Any, batch_sizes: Tensor | None) -> None:
        """Raise torch.nn's errors if the input or the states have wrong sizes."""
        self.check_input(input, batch_sizes)
        sizes = self._expected_sizes(input, batch_sizes)
        if len(sizes) == 1:
            self.check_hidden_size(hidden, sizes[0])
            return
        for index, (state, size) in enumerate(zip(hidden, sizes, strict=False)):
            self.check_hidden_size(state, size, f"Expected hidden[{index}] size {{}}, got {{}}")

    def permute_hidden(self, hx: States, permutation: Tensor | None) -> States:
        """Reorder the sequences of the states by ``permutation``, or return the states unchanged for None."""
        if permutation is None:
            return hx
        if isinstance(hx, Tensor):
            return hx.index_select(1, permutation)
        return tuple(state.index_select(1, permutation) for state in hx)

    def _initial_states(self, input: Tensor, batch_sizes: Tensor | None) -> States:
        """The initial states of a call that is given none: the learnt ones with ``learn_hx``, else zeros."""
        sizes = self._expected_sizes(input, batch_sizes)
        if self.learn_hx:
            learnt = [getattr(self, name) for name in self._learnt_names()]
            states = [state.unsqueeze(1).repeat(1, size[1], 1) for state, size in zip(learnt, sizes, strict=True)]
        else:
            states = [input.new_zeros(size) for size in sizes]
        return tuple(states) if len(states) > 1 else states[0]

    def _learnt_names(self) -> list[str]:
        """The names of the parameters that are initial states."""
        return [f"initial_{name}" for name in self.cell.states] if self.learn_hx else []

    def _learn_states(self, learn: bool, device: Any, dtype: Any) -> None:
        """Register parameters for the initial states if ``learn``. Raises TypeError if ``learn`` is no bool."""
        if not isinstance(learn, bool):
            raise TypeError(f"learn_hx should be of type bool, got: {type(learn).__name__}")
        if learn:
            self.learn_hx = True
            paths = self.num_layers * (2 if self.bidirectional else 1)
            for name, size in zip(self._learnt_names(), self._state_sizes(), strict=True):
                setattr(self, name, nn.Parameter(torch.empty((paths, size), device=device, dtype=dtype)))

    def _expected_sizes(self, input: Tensor, batch_sizes: Tensor | None) -> list[tuple[int, int, int]]:
        """The expected size of each state."""
        size = self.get_expected_hidden_size(input, batch_sizes)
        return [(*size[:2], units) for units in self._state_sizes()]

    def _state_sizes(self) -> list[int]:
        """The number of units of each state."""
        sizes = self._sizes_by_letter(self.input_size)
        first, *others = (sizes[letter] for letter in self.cell.state_sizes.values())
        return [self.proj_size or first, *others]

    def _sizes_by_letter(self, features: int) -> dict[str, int]:
        """The cell's sizes by letter, for a layer whose input has the given number of features."""
        return self.cell.sizes_by_letter(self.hidden_size) | {"F": features, "": 1}

    def _features(self) -> list[int]:
        """The number of input features of each layer."""
        found = [self.input_size]
        for _ in range(self.num_layers - 1):
            found.append(self._output_units(found[-1]))
        return found

    @property
    def output_size(self) -> int:
        """The number of features of the output: D·H or D·P, or as the cell declares."""
        return self._output_units(self._features()[-1])

    def _output_units(self, features: int) -> int:
        """The number of output units of one layer, all directions together, for the given number of input features."""
        units = self.proj_size or output_units(self.cell, self.hidden_size, features)
        return units * (2 if self.bidirectional else 1)

    def _layout(
        self, input: Tensor, batch_sizes: Tensor | None, sorted_indices: Tensor | None, batched: bool
    ) -> Layout:
        """The layout that streams have for the given input."""
        sizes = self._sizes_by_letter(self.input_size) | dict(zip("TB", self._extent(input, batch_sizes), strict=True))
        paths = self.num_layers * (2 if self.bidirectional else 1)
        return Layout(sizes, paths, self.batch_first, batched, order=sorted_indices)

    def _batch(self, input: Tensor | PackedSequence) -> int | None:
        """The number of sequences of a call's input, or None for an unbatched input."""
        if isinstance(input, PackedSequence):
            return int(input.batch_sizes[0])
        return None if input.dim() < 3 else input.shape[0 if self.batch_first else 1]

    def _extent(self, input: Tensor, batch_sizes: Tensor | None) -> tuple[int, int]:
        """The numbers of steps and sequences of an input. For a packed input: of its padded form."""
        if batch_sizes is not None:
            return batch_sizes.shape[0], int(batch_sizes[0])
        steps, batch = input.shape[:2]
        return (batch, steps) if self.batch_first else (steps, batch)

    def _batched_states(self, hx: Any, batched: bool) -> States:
        """``hx`` with a batch axis. The rank is checked, with torch.nn's error messages."""
        rank = 3 if batched else 2
        kind = "batched" if batched else "unbatched"
        if len(self.cell.states) == 1:
            if hx.dim() != rank:
                raise RuntimeError(f"For {kind} {rank}-D input, hx should also be {rank}-D but got {hx.dim()}-D tensor")
            return hx if batched else hx.unsqueeze(1)
        states = [hx[index] for index in range(len(self.cell.states))]
        if any(state.dim() != rank for state in states):
            names = "hx and cx" if len(states) == 2 else "hx"
            ranks = ", ".join(f"{state.dim()}-D" for state in states)
            raise RuntimeError(f"For {kind} {rank}-D input, {names} should also be {rank}-D but got ({ranks}) tensors")
        return hx if batched else tuple(state.unsqueeze(1) for state in states)

    def _states(self, hx: Any) -> tuple[Tensor, ...]:
        """``hx``, whose sizes are checked before, as a tuple. For a wrong number of states the errors are torch's."""
        count = len(self.cell.states)
        if count == 1:
            return (hx,)
        if isinstance(hx, Tensor):
            raise TypeError(f"hx should be a tuple of {count} tensors, not one Tensor")
        if len(hx) != count:
            raise RuntimeError(f"{self.cell.name} expects {COUNT.get(count, count)} hidden states")
        return tuple(hx)

    def _boundaries(
        self,
        input: Tensor,
        batch_sizes: Tensor | None,
        sorted_indices: Tensor | None,
        batched: bool,
        lengths: Any,
        reset: Tensor | None,
        reset_state: States | None,
    ) -> tuple[Tensor | None, Tensor | None, States | None]:
        """lengths, reset and reset_state in the layout of `functional.layers`, which checks the lengths itself."""
        if reset is None and reset_state is not None:
            raise ValueError("reset_state should only be given with reset")
        if lengths is None and reset is None:
            return None, None, None
        steps, batch = self._extent(input, batch_sizes)
        shape = (batch, steps) if self.batch_first else (steps, batch)
        batch_axis = 0 if self.batch_first else 1
        if lengths is not None and not batched:
            lengths = checks.as_tensor("lengths", lengths).reshape(-1)
        if reset is not None:
            reset = checks.as_tensor("reset", reset)
            reset = reset if batched else reset.unsqueeze(batch_axis)
            reset = checks.reset(reset, shape, self.batch_first, input.device)
            reset = reset if sorted_indices is None else reset.index_select(1, sorted_indices)
        if reset is not None and reset_state is None and self.learn_hx:
            return lengths, reset, self._initial_states(input, batch_sizes)
        if reset_state is not None:
            reset_state = self.permute_hidden(self._batched_states(reset_state, batched), sorted_indices)
            self.check_forward_args(input, reset_state, batch_sizes)
        return lengths, reset, reset_state
