"""A layer one step per call, for those who wait for each step: streaming speech, a policy in its environment."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from . import dispatch, functional
from .recurrence import Recurrence
from .weights import places

if TYPE_CHECKING:
    from .recurrent_layer import RecurrentLayer


Steps = tuple[list[Callable[[], None]], list[Callable[[], None]]]


class Stream:
    """A layer's states, and the function that moves them on by one step: ``output = stream(input)``.

    For inference: nothing is differentiated. Where the CPU engine runs the layer, memory is allocated once and a step
    is one call of a kernel for each layer; elsewhere, and for a layer with hooks or one that drops out, it is a call of
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
        weight = layer._flat_weights[0].detach()
        sizes = [layer.proj_size or layer.hidden_size, *[layer.hidden_size] * (len(layer.cell.states) - 1)]
        # Two of each: a step reads one and writes the other.
        self._states = [[weight.new_zeros((layer.num_layers, batch_size, size)) for size in sizes] for _ in range(2)]
        self._outputs = [states[0][-1] for states in self._states]
        self._input = weight.new_empty((batch_size, layer.input_size))
        self._shape, self._dtype = self._input.shape, self._input.dtype
        self._now = 0
        # What the kernels were prepared for; their steps, if there are any; whether they would be prepared alike now.
        self._prepared: tuple[tuple[Any, ...], Steps | None, Callable[[], bool]] = (), None, bool

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
        steps = None if torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu") else self._kernels()
        before, now = self._now, 1 - self._now
        if steps is None:
            states = self._states[before]
            with torch.no_grad():
                _, final = self.layer(self._batched(input), states[0] if len(states) == 1 else tuple(states))
            self._keep(now, final)
        else:
            self._input.copy_(input.detach() if input.requires_grad else input)
            for step in steps[before]:
                step()
        self._now = now
        return self._outputs[now]

    def _batched(self, input: Tensor) -> Tensor:
        return input.unsqueeze(1 if self.layer.batch_first else 0)

    def _kernels(self) -> Steps | None:
        """The steps of all layers, prepared once; None where they are for the layer to do."""
        layer = self.layer
        # Where the weights lie tells whether one was replaced; what is in them is read at each step.
        more = (layer.training and layer.dropout) or layer._forward_hooks or layer._forward_pre_hooks
        made_for = layer.backend, not more, places(layer._parameters)
        if made_for != self._prepared[0] or not self._prepared[2]():
            if dispatch.is_observed():
                return None
            with torch.no_grad():
                self._prepared = made_for, *((None, _always) if more else self._prepare())
        return self._prepared[1]

    def _prepare(self) -> tuple[Steps | None, Callable[[], bool]]:
        """The steps of all layers, for each of the two directions between the states, and what tells whether they hold.
        None where no engine has them, or where the weights are made anew at each call."""
        layer, weights = self.layer, self.layer._weights()
        nothing = None, _always
        if not set(layer._flat_weights_names) <= set(layer._parameters):
            return nothing
        choice = layer.plan(self._batched(self._input))
        engine = functional.inferring_engine(choice, [self._input], weights)
        if not hasattr(engine, "Inference"):
            return nothing
        made: Steps = [], []
        inputs = [self._input, self._input]
        for k in range(layer.num_layers):
            states = [[state[k : k + 1] for state in both] for both in self._states]
            one = engine.Inference(Recurrence(layer.cell, None, states[0], [weights[k]]), inputs[0].unsqueeze(0))
            if not one.in_place:
                return nothing
            for before, (old, new) in enumerate((states, states[::-1])):
                tensors = (inputs[before], new[0], *old, *new)
                made[before].append(one.at([tensor.data_ptr() for tensor in tensors]))
            inputs = [states[1][0][0], states[0][0][0]]
        return made, one.holds  # of one layer, for all


def _always() -> bool:
    return True


def _copy(layer: RecurrentLayer, batch_size: int, state: Tensor | tuple[Tensor, ...]) -> Stream:
    stream = Stream(layer, batch_size)
    stream.state = state
    return stream
