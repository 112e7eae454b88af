"""A layer one step per call, for those who wait for each step: streaming speech, a policy in its environment."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from . import functional
from .recurrence import Recurrence

if TYPE_CHECKING:
    from .recurrent_layer import RecurrentLayer


class Stream:
    """A layer's states, and the function that moves them on by one step: ``output = stream(input)``.

    For inference: nothing is differentiated. Where the CPU engine runs the layer, memory is allocated once and a step
    is one call of a kernel for each layer; elsewhere it is a call of the layer with T = 1. Weights are read at each
    step, so a change of them counts at once.

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
        self._now = 0
        self._made_for: tuple[str, list[int]] | None = None
        self._steps: list[list[Callable[[], None]]] | None = None
        self._holds: Callable[[], bool] = _always

    @property
    def state(self) -> Tensor | tuple[Tensor, ...]:
        """The states, as ``hx`` of the layer: (L, N, H or P), the others (L, N, H). They may be written to."""
        states = self._states[self._now]
        return states[0] if len(states) == 1 else tuple(states)

    @state.setter
    def state(self, new: Tensor | tuple[Tensor, ...]) -> None:
        for state, value in zip(self._states[self._now], [new] if isinstance(new, Tensor) else new, strict=True):
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
        own = self._input
        if input.shape != own.shape or input.dtype != own.dtype:
            raise RuntimeError(
                f"Expected input of size {tuple(own.shape)} and {own.dtype}, got {list(input.shape)} and {input.dtype}"
            )
        # Where the weights lie tells whether one was replaced; what is in them is read at each step.
        made_for = self.layer.backend, list(map(Tensor.data_ptr, self.layer._parameters.values()))
        if made_for != self._made_for or not self._holds():
            self._made_for, self._steps = made_for, self._kernels()
        before, self._now = self._now, 1 - self._now
        if self._steps is None:
            with torch.no_grad():
                states = self._states[before]
                _, self.state = self.layer(self._batched(input), states[0] if len(states) == 1 else tuple(states))
        else:
            own.copy_(input.detach())
            for step in self._steps[before]:
                step()
        return self._outputs[self._now]

    def _batched(self, input: Tensor) -> Tensor:
        return input.unsqueeze(1 if self.layer.batch_first else 0)

    def _kernels(self) -> list[list[Callable[[], None]]] | None:
        """For each of the two directions between the states, the steps of all layers; None where no engine has them, or
        where the weights are made anew at each call."""
        self._holds = _always
        if not set(self.layer._flat_weights_names) <= set(self.layer._parameters):
            return None
        layer, weights = self.layer, self.layer._weights()
        choice = layer.plan(self._batched(self._input))
        with torch.no_grad():
            engine = functional.inferring_engine(choice, [self._input], weights)
        if not hasattr(engine, "Inference"):
            return None
        made: list[list[Callable[[], None]]] = [[], []]
        inputs = [self._input, self._input]
        for k in range(layer.num_layers):
            states = [[state[k : k + 1] for state in both] for both in self._states]
            prepared = engine.Inference(Recurrence(layer.cell, None, states[0], [weights[k]]), inputs[0].unsqueeze(0))
            if not prepared.in_place:
                return None
            for before, (old, new) in enumerate((states, states[::-1])):
                tensors = (inputs[before], new[0], *old, *new)
                made[before].append(prepared.at([tensor.data_ptr() for tensor in tensors]))
            inputs = [states[1][0][0], states[0][0][0]]
        self._holds = prepared.holds  # of one layer, for all
        return made


def _always() -> bool:
    return True
