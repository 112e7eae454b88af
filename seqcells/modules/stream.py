"""A layer that computes one step per call, for uses that need each step at once: streaming speech, or a policy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..backends import preparing_engine
from ..call import choose
from ..call.fast_path import ModuleInference
from ..call.signature import Signature
from ..call.template import CallTemplate, parameters
from ..request import checks, context
from ..request.call import Call, Choice
from ..request.streams import names, of_one_step
from ..system.settings import current_settings
from .freezing import is_plain

if TYPE_CHECKING:
    from .recurrent_layer import RecurrentLayer


class Stream:
    """A layer's states, with a call that computes one time step: ``output = stream(input)``.

    A stream is for inference, without gradients. If the backend's engine can prepare the call, as the CPU engine can, a
    step is one call of the engine. It then works on memory that is allocated once. Otherwise a step is a call of the
    layer with T = 1: with hooks, an overridden ``forward``, dropout or zoneout, and under autocast, a transform or a
    trace. Each step reads the weights, so their changes take effect at once. So do changes of the layer's class, mode,
    backend or precision, and of `seqcells.settings`.

    Args:
        layer: a layer with one direction. The stream has its dtype and device.
        batch_size: number of rows N that are stepped together. Default: 1

    Raises:
        ValueError: for a bidirectional layer, whose second direction begins at the end; for a stateful layer, which
            keeps its states itself.
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
        # Tensors that are allocated in inference mode cannot be written to outside of it.
        with torch.inference_mode(False):
            # Two sets of states: a step reads one set and writes the other.
            self._states = [[weight.new_zeros(shape) for shape in shapes] for _ in range(2)]
            self._input = weight.new_empty((batch_size, layer.input_size))
        # Each layer's hidden state, where the layer also writes its output.
        self._hidden = [list(states[0]) for states in self._states]
        self._outputs = [hidden[-1] for hidden in self._hidden]
        self._extents = [[(s.data_ptr(), s.data_ptr() + s.nbytes) for s in states] for states in self._states]
        self._shape, self._dtype = self._input.shape, self._input.dtype
        self._now = 0
        # The signature of the prepared call, and the prepared call, or None.
        self._signature: Signature | None = None
        self._inference: ModuleInference | None = None
        if layer.learn_hx:
            self.reset()

    def __reduce__(self) -> tuple[Any, ...]:
        return _copy, (self.layer, self.batch_size, self.state)

    @property
    def state(self) -> Tensor | tuple[Tensor, ...]:
        """The states in the form of the layer's ``hx``: the first (L, N, H or P), the next (L, N, H).

        Callers may write to them.
        """
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
        """Set the initial states again, zeros or the learnt ones, in all rows or where ``rows`` (N,) bool is set.

        Raises:
            TypeError, RuntimeError: for ``rows`` of another dtype or size.
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
        """Write the learnt initial states to the rows of ``states`` in the mask ``chosen``, or to all rows for None."""
        learnt = self.layer._states(self.layer._initial_states(self._batched(self._input), None))
        for state, initial in zip(states, learnt, strict=True):
            state.copy_(initial if chosen is None else torch.where(chosen, initial, state))

    def __call__(self, input: Tensor, **streams: Tensor) -> Tensor:
        """Compute one step: input (N, input_size) → the last layer's output (N, H or P).

        The output is valid until the step after the next one, which may overwrite it. ``streams`` are the cell's
        streams by name, with the axes that the cell declares, without T. An axis of layers may come first.

        Raises:
            RuntimeError: for an input of another size or dtype.
            RuntimeError: if a hook or an overridden ``forward`` returns something else than one step's output and the
                states.
            RuntimeError: in training with ``recurrent_dropout``, whose masks hold for whole sequences.
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
        """A step by a call of the layer with T = 1 → the output of the step, and the states."""
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
        """A step of all layers by the prepared call, which is prepared if needed. False if the layer must be called."""
        if torch.compiler.is_compiling() or torch._C._is_any_autocast_enabled() or context.is_watched():
            return False
        layer = self.layer
        if not self._is_plain():
            return False
        own, weights = (layer.cell, layer.backend, layer._frozen), parameters(layer)
        options = type(layer), *own, current_settings()
        if not self._fits(input, weights, options) or self._is_written_to(input, now):
            # The copy has the same layout at each step, whatever the layout of the input.
            self._input.copy_(input.detach())
            input = self._input
            if not self._fits(input, weights, options):
                self._signature = self._inference = None  # so that an exception below leaves no stale call
                signature = Signature.of(layer, (input, *weights), *options)
                self._inference = None if signature is None else self._prepare()
                self._signature = signature
        if self._inference is not None and not self._inference.still_valid(weights):
            self._inference = self._prepare()
        if self._inference is None:
            return False
        self._inference(input, *self._states[before], *self._states[now], *self._hidden[now], parameters=weights)
        return True

    def _is_plain(self) -> bool:
        """Whether a step of the layer is a step of its cell, with the output in the first state's memory."""
        layer = self.layer
        changed = (layer.training and layer.dropout) or layer._is_regularised() or not is_plain(layer)
        return layer.cell.returns_first and not changed

    def plan(self) -> Choice:
        """The backend that the next step would run, and why."""
        choice = choose.explain(self._call(), self.layer.backend)
        if self._is_plain() and not names(self.layer.cell) and preparing_engine(choice.backend):
            return choice
        return self.layer.plan(self._batched(self._input))

    def _call(self) -> Call:
        """The `Call` that `seqcells.call.choose` reads for a step."""
        return self.layer._call(self._batched(self._input), self.layer._weights())._replace(form="stream")

    def _fits(self, input: Tensor, weights: Sequence[Tensor], options: tuple[Any, ...]) -> bool:
        return self._signature is not None and self._signature.fits(self.layer, (input, *weights), *options)

    def _is_written_to(self, input: Tensor, now: int) -> bool:
        """Whether the input's memory is in the states that this step writes, such as an output of an earlier step."""
        address = input.data_ptr()
        return any(first <= address < end for first, end in self._extents[now])

    @torch.no_grad()
    def _prepare(self) -> ModuleInference | None:
        layer = self.layer
        choice = choose.choose(self._call(), layer.backend)
        rest = self._input.unsqueeze(0), self._states[0], layer._weights(), layer.num_layers
        return ModuleInference.of(layer, CallTemplate.of(layer, choice, *rest))


def _described(found: Any) -> str:
    """The type of a value and, for a tuple or list, the types of its entries, in words."""
    inside = f" of {', '.join(type(each).__name__ for each in found)}" if isinstance(found, (tuple, list)) else ""
    return type(found).__name__ + inside


def _copy(layer: RecurrentLayer, batch_size: int, state: Tensor | tuple[Tensor, ...]) -> Stream:
    stream = Stream(layer, batch_size)
    stream.state = state
    return stream
