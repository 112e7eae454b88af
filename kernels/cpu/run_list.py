"""Lists of what the extension runs in one call (passes of layers, products, copies and sums), with the fields
that addresses belong in."""

import operator
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ...request.recurrence import Recurrence
from ...request.streams import names
from . import _engine
from .layer_call import LayerCall, named
from .library import precision_handle, threads


class At(NamedTuple):
    """An address: ``ahead`` bytes into an argument."""

    argument: Any
    ahead: int = 0

    def __add__(self, bytes: int) -> "At":
        return At(self.argument, self.ahead + bytes)


class Block:
    """Arrays that lie one after another in one argument, each of whole cache lines."""

    def __init__(self, argument: str) -> None:
        self._argument, self._taken, self.bytes = argument, 0, 0

    def take(self, bytes: int) -> At:
        place = At(self._argument, self._taken)
        self._taken += -(-bytes // 64) * 64
        self.bytes = max(self.bytes, self._taken)
        return place

    def free(self) -> None:
        """Let all memory be taken again."""
        self._taken = 0


MEMORY = "memory"
"""A list's own argument: memory by which runs pass values on to later runs."""


class RunList:
    """A list of runs, in order.

    Args:
        arguments: the names of the arguments that the list is called with.
    """

    def __init__(self, arguments: Sequence[Any]) -> None:
        self._arguments = len(arguments)
        self._which = {name: k for k, name in enumerate([*arguments, MEMORY])}
        self._runs: list[tuple[str, int, list[int], list[tuple[int, int, int]]]] = []

    def add(self, what: str, handle: int, fields: list[int], addresses: Mapping[int, At]) -> None:
        places = [(field, self._which[at.argument], at.ahead) for field, at in addresses.items()]
        self._runs.append((what, handle, fields, places))

    def layer(self, backward: bool, call: LayerCall, fields: list[int], directions: Sequence[Mapping[str, At]]) -> None:
        """A layer's pass. ``directions`` has each direction's addresses by the names of arrays; arrays that the pass
        does not have are ignored."""
        kernels, at = call.kernels, {}
        places = kernels.places[backward]
        for d, addresses in enumerate(directions):
            at |= {d * kernels.count + places[name]: at for name, at in addresses.items() if name in places}
        self.add("loop", kernels.handles[backward], fields, at)

    def gemm(
        self,
        call: LayerCall,
        sizes: tuple[int, int, int],
        left: tuple[At, int, int],
        right: tuple[At, int, int],
        out: At,
        bias: At | None = None,
    ) -> None:
        """A product of ``sizes`` (rows, columns, depth). Each matrix has its strides, in elements."""
        (a, *a_by), (b, *b_by) = left, right
        fields = [*sizes, threads(), 0, *a_by, 0, *b_by, 0, 0]
        at = {4: a, 7: b, 11: out} | ({} if bias is None else {10: bias})
        self.add("gemm", precision_handle(call.precision), fields, at)

    def copy(self, sizes: tuple[int, int, int], to: tuple[At, int, int], source: tuple[At, int, int]) -> None:
        """A copy of planes of rows, of ``sizes`` (planes, rows, bytes). Each array has its strides, in bytes."""
        (to_at, *to_by), (from_at, *from_by) = to, source
        self.add("copy", 0, [*sizes, 0, *to_by, 0, *from_by], {3: to_at, 6: from_at})

    def sum(self, count: int, size: int, to: At, source: At) -> None:
        """Add ``count`` numbers, of ``size`` bytes each, to as many numbers."""
        self.add("add", 0, [count, size, 0, 0], {2: to, 3: source})

    def side_by_side(self, directions: Sequence[Mapping[str, At]], name: str, bytes: int, memory: Block) -> At | None:
        """A weight of all directions, ``bytes`` bytes each, one below the other; None if a direction has no such
        weight."""
        at = [each.get(name) for each in directions]
        if None in at or len(at) == 1:
            return None if None in at else at[0]
        place = memory.take(len(at) * bytes)
        for d, each in enumerate(at):
            self.copy((1, 1, bytes), (place + d * bytes, 0, 0), (each, 0, 0))
        return place

    def projected(
        self, call: LayerCall, input: At, features: int, weights: Sequence[Mapping[str, At]], memory: Block
    ) -> list[At]:
        """The gates that a product makes from the input (T, B, features), for each direction."""
        size, units = call.dtype.itemsize, len(call.cell.gates) * call.hidden
        rows, columns = call.steps * call.batch, call.directions * units
        gates_x = memory.take(rows * columns * size)
        weight = self.side_by_side(weights, "weight_ih", units * features * size, memory)
        bias = self.side_by_side(weights, "bias_ih", units * size, memory)
        self.gemm(call, (rows, columns, features), (input, features, 1), (weight, 1, features), gates_x, bias)
        return [gates_x + d * units * size for d in range(call.directions)]

    def steps_first(self, call: LayerCall, row: int, memory: Block, source: At) -> At:
        """A copy as (T, B, ·) of the input or a stream (B, T, ·), whose rows have ``row`` bytes."""
        place = memory.take(call.steps * call.batch * row)
        transposed = source, row, call.steps * row
        self.copy((call.steps, call.batch, row), (place, call.batch * row, row), transposed)
        return place

    def done(self, bytes: int) -> Any:
        """The object of the extension that runs the list, with ``bytes`` bytes of memory of its own."""
        return _engine.prepared(self._runs, self._arguments, bytes)


def streams_of(
    runs: RunList, q: Recurrence, call: LayerCall, input: At, batch_first: bool, memory: Block
) -> dict[str, At]:
    """The addresses of a layer's streams, by the names of arrays. All layers and directions read the same streams.

    Args:
        batch_first: whether streams with steps and sequences lie as (B, T, ·).
    """
    found, size = {"x.input": input} if "input" in q.cell.streams else {}, call.dtype.itemsize
    for name in names(q.cell):
        source = At(("stream", name))
        if batch_first and q.cell.streams[name].startswith("TB"):
            source = runs.steps_first(call, call.widths()[f"x.{name}"] * size, memory, source)
        found[f"x.{name}"] = source
    return found


def are_read_in_place(q: Recurrence, call: LayerCall) -> bool:
    """Whether weights are read where the layer has them. Otherwise they were converted, or copied to another layout."""
    pairs = zip(q.weights, call.weights, strict=True)
    return all(all(map(operator.is_, w.present(), own.present())) for w, own in pairs)


def arguments_of(call: LayerCall, k: int, d: int) -> dict[str, tuple[int, int, str]]:
    """The arguments of a direction's weights, by the weights' names."""
    return {name: (k, d, name) for name in named(call.cell, call.weights[d])}
