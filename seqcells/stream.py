"""A layer one step per call, for those who wait for each step: streaming speech, a policy in its environment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from . import dispatch
from .prepared import Inference, Likeness, parameters

if TYPE_CHECKING:
    from .recurrent_layer import RecurrentLayer


class Stream:
    """A layer's states, and the function that moves them on by one step: ``output = stream(input)``.

    For inference: nothing is differentiated. Where the CPU engine runs the layer, memory is allocated once and a step
    is one call of the engine; elsewhere, and for a layer with hooks or one that drops out, it is a call of
    the layer with T = 1. Weights are read at each step, so a change of them counts at once, as does one of the layer's
    mode, backend or precision. Unlike a layer's calls, prepared steps are no operators for those who profile or trace.

    Args:
        layer: not bidirectional; its dtype and device are the stream's.
        batch_size: rows N that are stepped together. Default: 1

    Raises:
        ValueError: for a bidirectional layer, whose second direction begins at the end.
    """

    def __init__(self, layer: RecurrentLayer, batch_size: int = 1) -> None:
        if layer.bidirectional:
            raise ValueError("a bidirectional layer cannot be stepped: its second direction begins at the end")
        self.layer = layer
        self.batch_size = batch_size
        weight = layer._weights()[0].ih.detach()
        sizes = [layer.proj_size or layer.hidden_size, *[layer.hidden_size] * (len(layer.cell.states) - 1)]
        # Two of each: a step reads one and writes the other.
        self._states = [[weight.new_zeros((layer.num_layers, batch_size, size)) for size in sizes] for _ in range(2)]
        # Of each layer, where it writes its output too.
        self._hidden = [list(states[0]) for states in self._states]
        self._outputs = [hidden[-1] for hidden in self._hidden]
        self._extents = [[(s.data_ptr(), s.data_ptr() + s.nbytes) for s in states] for states in self._states]
        self._input = weight.new_empty((batch_size, layer.input_size))
        self._shape, self._dtype = self._input.shape, self._input.dtype
        self._now = 0
        # What the kernels' call was prepared for, and the call, if they have one.
        self._like: Likeness | None = None
        self._inference: Inference | None = None

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
        for state, value in zip(self._states[which], [new] if isinstance(new, Tensor) else new, strict=True):
            state.copy_(value.detach())

    def reset(self, rows: Tensor | None = None) -> None:
        """Zero the states, of all rows or where ``rows`` (N,) bool is set."""
        for state in self._states[self._now]:
            if rows is None:
                state.zero_()
            else:
                state.masked_fill_(rows.view(1, -1, 1), 0)

    def __call__(self, input: Tensor) -> Tensor:
        """One step: input (N, input_size) → the last layer's output (N, H or P), good until the step after next."""
        if input.shape != self._shape or input.dtype != self._dtype:
            size, dtype = tuple(self._shape), self._dtype
            raise RuntimeError(f"Expected input of size {size} and {dtype}, got {list(input.shape)} and {input.dtype}")
        before, now = self._now, 1 - self._now
        if not self._by_kernels(input, before, now):
            states = self._states[before]
            with torch.no_grad():
                _, final = self.layer(self._batched(input), states[0] if len(states) == 1 else tuple(states))
            self._keep(now, final)
        self._now = now
        return self._outputs[now]

    def _batched(self, input: Tensor) -> Tensor:
        return input.unsqueeze(1 if self.layer.batch_first else 0)

    def _by_kernels(self, input: Tensor, before: int, now: int) -> bool:
        """A step of all layers, if it was prepared or can be; False where it is for the layer to do."""
        if torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu"):
            return False
        layer = self.layer
        more = (layer.training and layer.dropout) or layer._forward_hooks or layer._forward_pre_hooks
        options, weights = (layer.cell, layer.backend, layer._frozen, not more), parameters(layer)
        if not self._fits(input, weights, options) or self._is_written_to(input, now):
            # However the input lies in memory, its copy is like any other's.
            self._input.copy_(input.detach())
            input = self._input
            if not self._fits(input, weights, options):
                if dispatch.is_watched():
                    return False
                self._like = self._inference = None  # until it is prepared, should that fail
                like = Likeness.of(layer, (input, *weights), *options)
                self._inference = None if more or like is None else self._prepare()
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
        choice = dispatch.choose(layer._call(input, weights)._replace(form="stream"), layer.backend)
        rest = self._input.unsqueeze(0), self._states[0], weights, layer.num_layers
        return Inference.of(layer, choice, layer.cell, *rest)


def _copy(layer: RecurrentLayer, batch_size: int, state: Tensor | tuple[Tensor, ...]) -> Stream:
    stream = Stream(layer, batch_size)
    stream.state = state
    return stream
