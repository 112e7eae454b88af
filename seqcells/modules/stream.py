"""A layer one step per call, for those who wait for each step: streaming speech, a policy in its environment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..call import choose
from ..call.likeness import Likeness
from ..call.prepared import Example, Inference, parameters
from ..request import checks, context
from ..request.streams import names, of_one_step
from ..system.settings import current_settings
from .freezing import is_plain

if TYPE_CHECKING:
    from .recurrent_layer import RecurrentLayer


class Stream:
    """A layer's states, and the function that moves them on by one step: ``output = stream(input)``.

    For inference: nothing is differentiated. Where the CPU engine runs the layer, memory is allocated once and a step
    is one call of the engine. Elsewhere a step is a call of the layer with T = 1, as it is for a layer with hooks, with
    a ``forward`` of somebody else's or with dropout or zoneout, under autocast, and where somebody traces or watches.
    Weights are read at each step, so a change of them counts at once, as does one of the layer's class, mode, backend
    or precision, or of `seqcells.settings`.

    Args:
        layer: not bidirectional; its dtype and device are the stream's.
        batch_size: rows N that are stepped together. Default: 1

    Raises:
        ValueError: for a bidirectional layer, whose second direction begins at the end; for a stateful one, which keeps
            its states itself.
    """

    def __init__(self, layer: RecurrentLayer, batch_size: int = 1) -> None:
        if layer.bidirectional:
            raise ValueError("a bidirectional layer cannot be stepped: its second direction begins at the end")
        if layer.stateful:
            raise ValueError("a stateful layer keeps its states itself: set layer.stateful = False to step it")
        self.layer = layer
        self.batch_size = batch_size
        weight = layer._weights()[0].first.detach()
        shapes = [(layer.num_layers, batch_size, size) for size in layer._state_sizes()]
        # What is allocated in inference mode could not be written to outside of it.
        with torch.inference_mode(False):
            # Two of each: a step reads one and writes the other.
            self._states = [[weight.new_zeros(shape) for shape in shapes] for _ in range(2)]
            self._input = weight.new_empty((batch_size, layer.input_size))
        # Of each layer, where it writes its output too.
        self._hidden = [list(states[0]) for states in self._states]
        self._outputs = [hidden[-1] for hidden in self._hidden]
        self._extents = [[(s.data_ptr(), s.data_ptr() + s.nbytes) for s in states] for states in self._states]
        self._shape, self._dtype = self._input.shape, self._input.dtype
        self._now = 0
        # What the kernels' call was prepared for, and the call, if they have one.
        self._like: Likeness | None = None
        self._inference: Inference | None = None
        if layer.learn_hx:
            self.reset()

    def __reduce__(self) -> tuple[Any, ...]:
        return _copy, (self.layer, self.batch_size, self.state)

    @property
    def state(self) -> Tensor | tuple[Tensor, ...]:
        """The states, as ``hx`` of the layer: (L, N, H or P), the others (L, N, H). They may be written to."""
        states = self._states[self._now]
        return states[0] if len(states) == 1 else tuple(states)

    @state.setter
    def state(self, new: Tensor | tuple[Tensor, ...]) -> None:
        self._keep(self._now, new)

    def _keep(self, which: int, new: Tensor | tuple[Tensor, ...]) -> None:
        values = self.layer._states(new)
        self.layer.check_forward_args(self._batched(self._input), new, None)
        for state, value in zip(self._states[which], values, strict=True):
            state.copy_(value.detach())

    def reset(self, rows: Tensor | None = None) -> None:
        """Begin anew with zeros, or the initial states that the layer has learnt, in all rows or where ``rows`` (N,)
        bool is set.

        Raises:
            TypeError, RuntimeError: ``rows`` of another dtype or size.
        """
        if rows is not None:
            rows = checks.rows(rows, self.batch_size, self._input.device)
        states, chosen = self._states[self._now], None if rows is None else rows.view(1, -1, 1)
        if self.layer.learn_hx:
            self._begin(states, chosen)
            return
        for state in states:
            if chosen is None:
                state.zero_()
            else:
                state.masked_fill_(chosen, 0)

    @torch.no_grad()
    def _begin(self, states: Sequence[Tensor], chosen: Tensor | None) -> None:
        """Write to states the initial ones that the layer has learnt."""
        learnt = self.layer._states(self.layer._initial_states(self._batched(self._input), None))
        for state, initial in zip(states, learnt, strict=True):
            state.copy_(initial if chosen is None else torch.where(chosen, initial, state))

    def __call__(self, input: Tensor, **streams: Tensor) -> Tensor:
        """One step: input (N, input_size) → the last layer's output (N, H or P), good until the step after next.

        ``streams`` are those of the cell by name, with the axes that it says but for T, perhaps after one of layers.

        Raises:
            RuntimeError: for an input of another size or dtype; where a hook of the layer, or a ``forward`` of somebody
                else's, gives something other than the output of one step and the states; in training with
                ``recurrent_dropout``, whose masks are those of whole sequences.
        """
        if input.shape != self._shape or input.dtype != self._dtype:
            size, dtype = tuple(self._shape), self._dtype
            raise RuntimeError(f"Expected input of size {size} and {dtype}, got {list(input.shape)} and {input.dtype}")
        before, now = self._now, 1 - self._now
        if not streams and not names(self.layer.cell) and self._by_kernels(input, before, now):
            output = self._outputs[now]
        else:
            output, final = self._by_layer(input, before, streams)
            self._keep(now, final)
        self._now = now
        return output

    @torch.no_grad()
    def _by_layer(
        self, input: Tensor, before: int, streams: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor | tuple[Tensor, ...]]:
        """A call of the layer with T = 1 → the output of that step, the states."""
        layer, states = self.layer, self._states[before]
        if layer.training and layer.recurrent_dropout:
            raise RuntimeError("recurrent_dropout has one mask for all steps of a sequence: call eval() to step it")
        given = self._batched(input)
        own = of_one_step(layer.cell, streams, layer.batch_first)
        found = layer(given, states[0] if len(states) == 1 else tuple(states), **own)
        if not isinstance(found, (tuple, list)) or len(found) != 2 or not isinstance(found[0], Tensor):
            raise RuntimeError(f"a stream's layer should give an output and states, got: {_described(found)}")
        output, final = found
        if output.dim() != 3 or output.shape[:2] != given.shape[:2]:
            size = (*given.shape[:2], "…")
            raise RuntimeError(f"a stream's layer should give an output of size {size}, got {list(output.shape)}")
        return output.detach().select(1 if layer.batch_first else 0, 0), final

    def _batched(self, input: Tensor) -> Tensor:
        return input.unsqueeze(1 if self.layer.batch_first else 0)

    def _by_kernels(self, input: Tensor, before: int, now: int) -> bool:
        """A step of all layers, if it was prepared or can be; False where it is for the layer to do."""
        if torch.compiler.is_compiling() or torch._C._is_any_autocast_enabled() or context.is_watched():
            return False
        layer = self.layer
        if not layer.cell.returns_first:  # the memory is the first states'
            return False
        if (layer.training and layer.dropout) or layer._is_regularised() or not is_plain(layer):
            return False
        own, weights = (layer.cell, layer.backend, layer._frozen), parameters(layer)
        options = type(layer), *own, current_settings()
        if not self._fits(input, weights, options) or self._is_written_to(input, now):
            # However the input lies in memory, its copy is like any other's.
            self._input.copy_(input.detach())
            input = self._input
            if not self._fits(input, weights, options):
                self._like = self._inference = None  # until it is prepared, should that fail
                like = Likeness.of(layer, (input, *weights), *options)
                self._inference = None if like is None else self._prepare()
                self._like = like
        if self._inference is not None and not self._inference.holds(weights):
            self._inference = self._prepare()
        if self._inference is None:
            return False
        self._inference(input, *self._states[before], *self._states[now], *self._hidden[now], parameters=weights)
        return True

    def _fits(self, input: Tensor, weights: Sequence[Tensor], options: tuple[Any, ...]) -> bool:
        return self._like is not None and self._like.fits(self.layer, (input, *weights), *options)

    def _is_written_to(self, input: Tensor, now: int) -> bool:
        """Whether it is an output or a state of the step before the last, whose places the new ones take."""
        address = input.data_ptr()
        return any(first <= address < end for first, end in self._extents[now])

    @torch.no_grad()
    def _prepare(self) -> Inference | None:
        layer, input = self.layer, self._batched(self._input)
        weights = layer._weights()
        choice = choose.choose(layer._call(input, weights)._replace(form="stream"), layer.backend)
        rest = self._input.unsqueeze(0), self._states[0], weights, layer.num_layers
        return Inference.of(layer, Example.of(layer, choice, *rest))


def _described(found: Any) -> str:
    """The type of what was found, and of what is in it."""
    inside = f" of {', '.join(type(each).__name__ for each in found)}" if isinstance(found, (tuple, list)) else ""
    return type(found).__name__ + inside


def _copy(layer: RecurrentLayer, batch_size: int, state: Tensor | tuple[Tensor, ...]) -> Stream:
    stream = Stream(layer, batch_size)
    stream.state = state
    return stream
