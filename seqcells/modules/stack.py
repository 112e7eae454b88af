"""Stacks of layers, or of cell modules, with different sizes and cells."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout
from torch.nn.utils.rnn import PackedSequence

from ..request import checks
from ..request.boundaries import valid_places
from ..request.call import Choice
from ..request.recurrence import output_units
from ..request.streams import names
from .cell_modules import RecurrentCell, States
from .connections import CONNECTIONS, MERGES, merged
from .recurrent_layer import RecurrentLayer
from .stream import Stream

if TYPE_CHECKING:
    from .static_types import Modules

T = TypeVar("T")
Connections = str | None | Sequence[str | None]
EachStates = Sequence[States | None] | None
"""The states of each layer. None for a layer means the layer's own default."""


class Stacked(nn.Module):
    """The common part of stacks of layers and of cell modules: dropout, connections and norms between the modules."""

    input_size: int
    output_size: int
    dropout: float
    connections: nn.ModuleDict
    norms: nn.ModuleDict

    def _make_between(
        self,
        modules: Sequence[RecurrentLayer | RecurrentCell],
        sizes: Sequence[tuple[int, int]],
        connection: Connections,
        probability: float,
        layer_norm: bool,
    ) -> None:
        """Make the parts between modules.

        ``sizes`` are pairs for each module: the features of its input, and of its output after the merge of directions.
        """
        checks.probability(probability)
        for k, ((_, below), (features, _)) in enumerate(pairwise(sizes), start=1):
            if features != below:
                raise ValueError(f"module {k} should have input_size {below}, as module {k - 1} gives, got {features}")
        count = len(sizes)
        if not (connection is None or isinstance(connection, (str, tuple, list))):
            raise TypeError(f"connection should be a name, or one for each module, got {connection!r}")
        kinds = [None, *[connection] * (count - 1)] if connection is None or isinstance(connection, str) else connection
        if len(kinds) != count:
            raise ValueError(f"connection should have {count} entries, one for each module, got {len(kinds)}")
        for kind in kinds:
            if kind is not None and kind not in CONNECTIONS:
                raise ValueError(f"unknown connection {kind!r}: choose None, {' or '.join(map(repr, CONNECTIONS))}")
        weight = next(modules[0].parameters())
        like = {"device": weight.device, "dtype": weight.dtype}
        self.dropout = float(probability)
        self.connections = nn.ModuleDict()
        self.norms = nn.ModuleDict()
        for k, (kind, size) in enumerate(zip(kinds, sizes, strict=True)):
            if kind is not None:
                self.connections[str(k)] = CONNECTIONS[kind](*size, **like)
            if layer_norm and k < count - 1:
                self.norms[str(k)] = nn.LayerNorm(size[1], **like)
        self._last, self.input_size, self.output_size = count - 1, sizes[0][0], sizes[-1][1]

    def _connected(self, k: int, input: Tensor, output: Tensor) -> Tensor:
        """Dropout, connection and norm after module k, for its input (…, features) and output (…, units)."""
        if self.dropout and self.training and k < self._last:
            output = dropout(output, self.dropout)
        if str(k) in self.connections:
            output = self.connections[str(k)](input, output)
        return self.norms[str(k)](output) if str(k) in self.norms else output


class Stack(Stacked):
    """A stack of layers with different sizes and cells. Each layer reads the output of the layer below.

    Args:
        layers: `RecurrentLayer` modules with the same ``batch_first``. Each has the ``input_size`` that the layer below
            gives. Each may itself have several layers and two directions.
        connection: the combination of a layer's input and output: None for the output, ``"residual"`` for their sum,
            ``"highway"`` for a learnt mixture; see `seqcells.modules.connections`. One name holds for all layers but
            the first. A sequence has an entry for each layer. Default: None
        dropout: probability of zeroing an output of any layer but the last, before the connection, in training.
            Default: 0
        layer_norm: whether torch.nn.LayerNorm normalises the output of any layer but the last over its units, after
            the connection. Default: False
        merge: how the outputs of two directions are merged: ``"concat"``, ``"sum"``, ``"mul"`` or ``"average"``.
            Default: ``"concat"``

    Attributes:
        layers, connections, norms: the parts, by the layer's number, counted from 0.
        input_size, output_size: numbers of features of the stack's input and output.

    Raises:
        TypeError: for a layer that is no `RecurrentLayer`.
        ValueError: for sizes that do not match, an unknown connection or merge, no layers, and a ``dropout`` that is no
            probability.
    """

    def __init__(
        self,
        *layers: RecurrentLayer,
        connection: Connections = None,
        dropout: float = 0.0,
        layer_norm: bool = False,
        merge: str = "concat",
    ) -> None:
        super().__init__()
        _check(layers, RecurrentLayer)
        if merge not in ("concat", *MERGES):
            raise ValueError(f"unknown merge {merge!r}: choose one of 'concat', {', '.join(map(repr, MERGES))}")
        if len({layer.batch_first for layer in layers}) > 1:
            raise ValueError("all layers of a stack should have the same batch_first")
        self.layers: Modules[RecurrentLayer] = cast("Modules[RecurrentLayer]", nn.ModuleList(layers))  # which they are
        self.merge = merge
        sizes = []
        for layer in layers:
            halves = 2 if layer.bidirectional and merge != "concat" else 1
            sizes.append((layer.input_size, layer.output_size // halves))
        self._make_between(layers, sizes, connection, dropout, layer_norm)

    def extra_repr(self) -> str:
        return ", ".join(
            [f"dropout={self.dropout}"] * bool(self.dropout) + [f"merge={self.merge!r}"] * (self.merge != "concat")
        )

    @property
    def batch_first(self) -> bool:
        """Whether input and output are (N, T, features)."""
        return self.layers[0].batch_first

    def forward(
        self,
        input: Tensor | PackedSequence,
        hx: EachStates = None,
        *,
        lengths: Tensor | None = None,
        reset: Tensor | None = None,
        reset_state: EachStates = None,
        **streams: Tensor,
    ) -> tuple[Tensor | PackedSequence, tuple[States, ...]]:
        """Run the sequences through the layers.

        Args:
            input: (T, N, input_size), (N, T, input_size) with ``batch_first``, (T, input_size) unbatched, or a
                PackedSequence.
            hx: a sequence of each layer's initial states, in the form of the layer's own ``hx`` or None. Default: each
                layer's own default
            lengths, reset: as in `RecurrentLayer`.
            reset_state: like hx. Default: each layer's own default
            streams: inputs by name. Each goes to all layers whose cells read a stream of this name.

        Returns:
            The output of the last layer (…, output_size), in the form of the input, zero past a sequence's length; and
            a tuple of the layers' final states.

        Raises:
            TypeError: for a stream that no layer's cell reads.
            RuntimeError: for ``hx`` or ``reset_state`` with another number of entries than layers.
            ValueError, RuntimeError, TypeError: as `RecurrentLayer`.
        """
        count = len(self.layers)
        starts = [None] * count if hx is None else _each("hx", hx, count)
        anew = [None] * count if reset_state is None else _each("reset_state", reset_state, count)
        _check_streams(self.layers, streams)
        if lengths is not None:
            lengths = self._checked(lengths, input)
            if lengths is not None and "0" in self.connections:  # padding must not reach the connection's gradients
                input = self._within(lengths, input)
        finals: list[States] = []
        value = input
        for k, layer in enumerate(self.layers):
            given = {"lengths": lengths, "reset": reset, "reset_state": anew[k], **_read(layer, streams)}
            if isinstance(value, PackedSequence):
                packed, final = layer(value, starts[k], **given)
                above = self._passed_on(k, value.data, packed.data)
                value = PackedSequence(above, packed.batch_sizes, packed.sorted_indices, packed.unsorted_indices)
            else:
                output, final = layer(value, starts[k], **given)
                value = self._passed_on(k, value, output)
            finals.append(final)
        if lengths is not None and str(self._last) in self.connections:
            value = self._within(lengths, value)
        return value, tuple(finals)

    def plan(
        self,
        input: Tensor | PackedSequence,
        hx: EachStates = None,
        *,
        lengths: Any = None,
        reset: Any = None,
        reset_state: EachStates = None,
        **streams: Tensor,
    ) -> tuple[Choice, ...]:
        """For each layer, the backend that ``forward`` would run for these arguments, and why; see
        `RecurrentLayer.plan`."""
        given = (_of_features(input, layer.input_size) for layer in self.layers)
        bounds = {"lengths": lengths, "reset": reset}
        return tuple(layer.plan(each, **bounds) for layer, each in zip(self.layers, given, strict=True))

    def _passed_on(self, k: int, input: Tensor, output: Tensor) -> Tensor:
        """The output of layer k for the layer above, or for the caller: merged, then `_connected`."""
        if self.layers[k].bidirectional:
            output = merged(self.merge, output)
        return self._connected(k, input, output)

    def _checked(self, lengths: Any, input: Tensor | PackedSequence) -> Any:
        """The lengths as a tensor on the input's device. With a PackedSequence the first layer rejects them later."""
        if isinstance(input, PackedSequence) or input.dim() not in (2, 3):
            return lengths
        batch, steps = (1, input.shape[0]) if input.dim() == 2 else input.shape[:2]
        batch, steps = (batch, steps) if self.batch_first or input.dim() == 2 else (steps, batch)
        given = checks.as_tensor("lengths", lengths)
        return checks.lengths(given.reshape(-1) if input.dim() == 2 else given, steps, batch, input.device)

    def _within(self, lengths: Tensor, value: Tensor | PackedSequence) -> Tensor | PackedSequence:
        """The values, with zeros past the ends of sequences."""
        if isinstance(value, PackedSequence):
            return value
        return value.masked_fill(~valid_places(lengths, value, self.batch_first).unsqueeze(-1), 0)

    def reset_states(self, rows: Tensor | None = None) -> None:
        """Forget the kept states of stateful layers; see `RecurrentLayer.reset_states`."""
        for layer in self.layers:
            layer.reset_states(rows)

    def stream(self, batch_size: int = 1) -> StackStream:
        """A stream of the stack: it holds the states and computes one step per call, ``output = stream(input)``."""
        return StackStream(self, batch_size)


class StackStream:
    """A stack's states, with a call that computes one time step; see `seqcells.modules.stream.Stream`.

    Args:
        stack: a stack whose layers have one direction.
        batch_size: number of rows N that are stepped together. Default: 1
    """

    def __init__(self, stack: Stack, batch_size: int = 1) -> None:
        self.stack = stack
        self.streams: list[Stream] = [layer.stream(batch_size) for layer in stack.layers]

    @property
    def state(self) -> tuple[States, ...]:
        """The states of all layers, in the form of the stack's ``hx``. Callers may write to them."""
        return tuple(stream.state for stream in self.streams)

    @state.setter
    def state(self, new: Sequence[States]) -> None:
        for stream, state in zip(self.streams, _each("state", new, len(self.streams)), strict=True):
            stream.state = state

    def reset(self, rows: Tensor | None = None) -> None:
        """Set the initial states again, in all rows or in the rows where ``rows`` (N,) bool is set."""
        for stream in self.streams:
            stream.reset(rows)

    def plan(self) -> tuple[Choice, ...]:
        """For each layer, the backend that the next step would run, and why."""
        return tuple(stream.plan() for stream in self.streams)

    @torch.no_grad()
    def __call__(self, input: Tensor, **streams: Tensor) -> Tensor:
        """Compute one step: input (N, input_size) → the last layer's output (N, output_size).

        The output is valid until the step after the next one, which may overwrite it.
        """
        _check_streams(self.stack.layers, streams)
        value = input
        for k, stream in enumerate(self.streams):
            value = self.stack._passed_on(k, value, stream(value, **_read(stream.layer, streams)))
        return value


class StackedCells(Stacked):
    """A stack of cell modules with different sizes and cells. A call computes one time step of all.

    Args:
        cells: `RecurrentCell` modules. Each has the ``input_size`` that the module below gives.
        connection, dropout, layer_norm: as in `Stack`.

    Raises:
        TypeError: for a module that is no `RecurrentCell`.
        ValueError: as `Stack`.
    """

    def __init__(
        self,
        *cells: RecurrentCell,
        connection: Connections = None,
        dropout: float = 0.0,
        layer_norm: bool = False,
    ) -> None:
        super().__init__()
        _check(cells, RecurrentCell)
        self.cells: Modules[RecurrentCell] = cast("Modules[RecurrentCell]", nn.ModuleList(cells))  # which they are
        sizes = [(c.input_size, output_units(c.cell, c.hidden_size, c.input_size)) for c in cells]
        self._make_between(cells, sizes, connection, dropout, layer_norm)

    def forward(self, input: Tensor, hx: EachStates = None, **streams: Tensor) -> tuple[Tensor, tuple[States, ...]]:
        """Compute one time step.

        Args:
            input: (N, input_size), or (input_size,) unbatched.
            hx: a sequence of each cell's states, in the form of the cell's own ``hx`` or None. Default: zeros
            streams: inputs by name. Each goes to the cells that read it.

        Returns:
            The output of the last cell (N, output_size), and a tuple of the cells' new states.
        """
        count = len(self.cells)
        starts = [None] * count if hx is None else _each("hx", hx, count)
        _check_streams(self.cells, streams)
        states, value = [], input
        for k, cell in enumerate(self.cells):
            new = cell(value, starts[k], **_read(cell, streams))
            states_of, output = cell.cell.states, cell.cell.output
            if output in ("", *states_of):
                output = new if len(states_of) == 1 else new[states_of.index(output or states_of[0])]
            else:
                output, new = new
            states.append(new)
            value = self._connected(k, value, output)
        return value, tuple(states)

    def plan(self, input: Tensor, hx: EachStates = None, **streams: Tensor) -> tuple[Choice, ...]:
        """For each cell module, the backend that ``forward`` would run for these arguments, and why."""
        given = (_of_features(input, cell.input_size) for cell in self.cells)
        return tuple(cell.plan(each) for cell, each in zip(self.cells, given, strict=True))


def _of_features(input: Tensor | PackedSequence, features: int) -> Any:
    """An input like another, with a number of features. It takes no memory and has no values."""
    if isinstance(input, PackedSequence):
        return input._replace(data=_of_features(input.data, features))
    return input.new_empty(1).expand(*input.shape[:-1], features)


def _check(modules: Sequence[Any], kind: type[nn.Module]) -> None:
    if not modules:
        raise ValueError(f"a stack should have at least one {kind.__name__}")
    for module in modules:
        if not isinstance(module, kind):
            raise TypeError(f"a stack should be made of {kind.__name__} of seqcells, got {type(module).__name__}")


def _each(name: str, given: Sequence[T], count: int) -> Sequence[T]:
    """The given sequence. RuntimeError if it does not have one entry for each module."""
    if not isinstance(given, (tuple, list)) or len(given) != count:
        size = len(given) if isinstance(given, (tuple, list)) else f"one {type(given).__name__}"
        raise RuntimeError(f"Expected {name} of {count} entries, one for each module, got {size}")
    return given


def _read(module: Any, streams: dict[str, Tensor]) -> dict[str, Any]:
    """The streams among ``streams`` that a module's cell reads."""
    return {name: stream for name, stream in streams.items() if name in names(module.cell)}


def _check_streams(modules: Any, streams: dict[str, Tensor]) -> None:
    unknown = streams.keys() - {name for module in modules for name in names(module.cell)}
    if unknown:
        raise TypeError(f"a stack got an unexpected keyword argument {min(unknown)!r}, which no cell of it reads")
