"""Keras' recurrent layers on the engines of seqcells, where Keras' backend is torch: `pip install keras`.

``enable()`` lets Keras' layers call the engines, ``disable()`` undoes that, and ``with enabled():`` does both. Models,
layers, configurations, weights and saved files remain Keras'. Calls that the engines cannot run are run by Keras as
before. ``plan(layer)`` says who runs a layer's calls, and why.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch
from keras import backend, layers, tree
from torch import Tensor
from torch.jit._trace import is_tracing

from ... import functional
from ...backends import check_name
from ...request import context
from . import match_cell
from .match_cell import RNNCell
from .weights import assign, to_layer

__all__ = ["RNNCell", "assign", "calls", "disable", "enable", "enabled", "plan", "to_layer"]

calls: Counter[str] = Counter()
"""The number of calls of layers that the engines have run (``"seqcells"``), and that Keras has run, for each reason."""
OURS = "seqcells"
KINDS: tuple[Any, ...] = layers.RNN, layers.LSTM, layers.GRU
"""The classes with a loop of their own; SimpleRNN uses RNN's loop."""
_theirs: dict[type, Callable[..., Any]] = {}
_backend = "auto"
_switching = threading.RLock()
_falling_back = threading.local()
"""The layer whose own loop runs in this thread. A subclass's loop may call its base's loop, which is no new call."""


def enable(backend: str = "auto") -> None:
    """Let Keras' recurrent layers run on the engines from now on, including existing layers.

    Args:
        backend: see `seqcells.call.choose`. Default: ``"auto"``

    Raises:
        RuntimeError: Keras' own backend is not torch.
        ValueError: there is no such backend.
    """
    global _backend
    _check_torch()
    check_name(backend)
    with _switching:
        _backend = backend
        for kind in KINDS:
            if kind not in _theirs:
                _theirs[kind] = kind.inner_loop
                kind.inner_loop = _replacing(kind.inner_loop)


def disable() -> None:
    """Let Keras' own loops run again."""
    with _switching:
        for kind in [*_theirs]:
            kind.inner_loop = _theirs.pop(kind)


@contextmanager
def enabled(backend: str = "auto") -> Iterator[None]:
    """A context manager and decorator: `enable` for a block or a function, in all threads."""
    before = bool(_theirs), _backend
    enable(backend)
    try:
        yield
    finally:
        if before[0]:
            enable(before[1])
        else:
            disable()


def plan(layer: Any, training: bool = False) -> str:
    """Who would run a layer's calls if the engines were enabled, and why: ``"seqcells: lstm"`` or ``"keras: …"``.

    Args:
        layer: a recurrent layer, or Bidirectional; then the text describes both of its layers.
        training: whether dropout is active. Default: False

    Raises:
        TypeError: the layer is of another kind.
    """
    if isinstance(layer, layers.Bidirectional):
        return "; ".join(plan(part, training) for part in (layer.forward_layer, layer.backward_layer))
    if not isinstance(layer, layers.RNN):
        raise TypeError(f"expected a recurrent layer of Keras, got {type(layer).__name__}")
    why_not = _why_not(layer, training)
    if why_not:
        return f"keras: {why_not}"
    return f"{OURS}: " + ", ".join(match_cell.of(cell, training).cell.name for cell in _stack(layer.cell))


def _check_torch() -> None:
    if backend.backend() != "torch":
        words = "set KERAS_BACKEND=torch before keras is imported"
        raise RuntimeError(f"Keras runs on {backend.backend()}, seqcells on torch: {words}")


def _stack(cell: Any) -> list[Any]:
    """The cells of a stack, from the first to the last."""
    return [each for own in cell.cells for each in _stack(own)] if type(cell) is layers.StackedRNNCells else [cell]


def _why_not(layer: layers.RNN, training: bool) -> str | None:
    """Why the engines cannot run a layer, or None."""
    for cell in _stack(layer.cell):
        why_not = match_cell.why_not(cell)
        if why_not:
            return why_not
        if cell.compute_dtype != layer.compute_dtype or cell.activity_regularizer is not None:
            return "its cell has a dtype or a regularizer of its own"
        if training and 1 in (cell.dropout, cell.recurrent_dropout):
            return "a rate of 1, which drops all in some of Keras' own ways and nothing in others"
    return None


def _why_not_called(sequences: Any, mask: Any) -> str | None:
    """Why the engines cannot run a call, or None."""
    if not isinstance(sequences, Tensor) or sequences.ndim != 3 or not sequences.shape[1]:
        return "its input is not (batch, steps, features)"
    if mask is not None and mask.shape != sequences.shape[:2]:
        return "its mask is not (batch, steps)"
    if sequences.is_meta:
        return "shapes are asked for alone"
    if is_tracing() or context.is_exporting():
        return "an exported model wants operators of torch's own"
    return None


def _replacing(theirs: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(theirs)
    def inner_loop(self: Any, sequences: Any, initial_state: Any, mask: Any, training: bool = False) -> Any:
        training, outer = bool(training), getattr(_falling_back, "layer", None)
        if outer is self:
            return theirs(self, sequences, initial_state, mask, training=training)
        first = tree.flatten(mask)[0] if mask is not None else None
        why_not = _why_not(self, training) or _why_not_called(sequences, first)
        calls[why_not or OURS] += 1
        if not why_not:
            return _inner_loop(self, sequences, initial_state, first, training)
        _falling_back.layer = self
        try:
            return theirs(self, sequences, initial_state, mask, training=training)
        finally:
            _falling_back.layer = outer

    return inner_loop


def _inner_loop(layer: Any, x: Tensor, states: Any, mask: Tensor | None, training: bool) -> tuple[Tensor, Tensor, Any]:
    """The results of `keras.layers.RNN.inner_loop`: last output, outputs in the order of computation, final states."""
    if layer.stateful:  # Keras overwrites the states after the call, but the backward pass reads them
        states = tree.map_structure(torch.clone, states)
    x = x.to(match_cell.dtype(_stack(layer.cell)[0]))
    if layer.go_backwards:
        x, mask = x.flip(1), None if mask is None else mask.flip(1)
    if mask is None:
        outputs, states = _run(layer.cell, x, states, None, training)
        return outputs[:, -1], outputs, states
    # A masked step does not change the states. So the unmasked steps are moved together and run as a shorter sequence.
    # Their outputs are then moved to the places that Keras expects.
    mask = mask.bool()
    count = mask.cumsum(1)
    order = (~mask).to(torch.uint8).argsort(dim=1, stable=True)
    x = x.gather(1, order.unsqueeze(-1).expand_as(x))
    outputs, states = _run(layer.cell, x, states, count[:, -1], training)
    seen = mask if layer.zero_output_for_mask else count > 0
    place = (count - 1).clamp(min=0)
    if not layer.return_sequences:
        place, seen = place[:, -1:], seen[:, -1:]
    outputs = outputs.gather(1, place.unsqueeze(-1).expand(-1, -1, outputs.shape[-1]))
    outputs = torch.where(seen.unsqueeze(-1), outputs, 0)
    return outputs[:, -1], outputs, states


def _of_batch(state: Tensor, batch: int, size: int) -> Tensor:
    """A state for each sequence; Keras allows a state of one row for all sequences."""
    return state.expand(batch, size) if state.shape in ((size,), (1, size)) else state


def _run(cell: Any, x: Tensor, states: Any, lengths: Tensor | None, training: bool) -> tuple[Tensor, Any]:
    """Run a cell or a stack over all time steps → output (B, T, ·), final states nested like the initial states."""
    if type(cell) is layers.StackedRNNCells:
        finals = []
        for own, own_states in zip(cell.cells, states, strict=True):
            x, final = _run(own, x, own_states, lengths, training)
            finals.append(final)
        return x, finals
    flat = [
        _of_batch(state, len(x), size).to(x.dtype)
        for state, size in zip(tree.flatten(states), tree.flatten(cell.state_size), strict=True)
    ]
    made = match_cell.of(cell, training)
    weights, streams = made.weights(x.dtype), made.streams(x, flat[0])
    gates_x = made.gates_x(x)
    given: dict[str, Any] = {"lengths": lengths, "streams": streams, "backend": _backend}
    if gates_x is None:
        one = [state.unsqueeze(0) for state in flat]
        output, final = functional.layers(made.cell, made.input(x), one, [weights], batch_first=True, **given)
        final = [state.squeeze(0) for state in final]
    else:
        output, final = functional.recurrence(made.cell, gates_x.transpose(0, 1), flat, weights, **given)
        output = output.transpose(0, 1)
    return output, tree.pack_sequence_as(states, [*final])
