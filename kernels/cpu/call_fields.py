"""A cell's two passes as the loop takes them, and the fields of ``LayerCall`` in layer_call.h."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING

from ...cells import Cell
from ...derive.layout import Layout
from ...derive.named_values import keeping
from . import _engine, library
from .compiled import Pass, Passes, passes
from .gradients import Columns, Run, runs

if TYPE_CHECKING:
    from .layer_call import LayerCall

_LETTERS = [f"size.{k}" for k in range(_engine.MAX_LETTERS)]
_SIZES = ["steps", "batch", *_LETTERS, "reverse", "threads", "is_bfloat16", "features"]
_FIELDS = [*_SIZES, *["input", "weight_ih", "bias_ih", "lengths", "reset", "packed"]]
"""The fields of ``LayerCall`` before its arrays and their widths, in order."""


class Compiled:
    """A cell's two passes, for one precision and the instruction set in use. Without handles they cannot run."""

    def __init__(self, cell: type[Cell], both: Passes, handles: tuple[int, ...] = ()) -> None:
        self.passes, self.handles = both, handles
        self.count = len(_FIELDS) + 2 * _engine.MAX_ARRAYS
        self.places = tuple(map(_places, self.passes))
        forward, backward = (each.layout for each in self.passes)
        self.gates_inside = bool(cell.gates) and forward.gates_inside and "input" not in cell.streams
        """Whether the loop may project the input. Then the gates' inputs never exist as a whole."""
        terms = [Run(t.weight, t.block, 1, t.heads, Columns(*t.d), Columns(*t.operand)) for t in backward.terms]
        self.runs = runs(terms)
        self._weights = {run.weight for run in self.runs}
        own, made = [*cell.own_names(), "bias_hh"], {*self.places[True], *(f"grad_{each}" for each in self._weights)}
        written = sum(run.count for run in self.runs) == sum(len(each.rows) for each in cell.every_product.values())
        self.writes_gradients_once = written and not any(run.adds for run in self.runs)
        self.writes_gradients_once &= all(
            f"grad_{name}" in made for name in own if name != "bias_hh" or cell.recurrent_gates
        )
        self.unwritten = _unwritten(cell, backward)
        self.writes_gradients_once &= not self.unwritten
        """Whether each weight's gradient is written as a whole, and nothing is added to a part of it."""
        self.reads_previous = "previous" in self.places[True] or any(t.operand.array == "previous" for t in terms)
        """Whether backward, or a weight's gradient after it, reads the states that each step's product read."""
        self._letters = forward.stages.letters
        # Kept arrays have columns of units, or of single numbers.
        self._kept = {name: (forward.columns(name), letter) for name, letter in forward.histories.items()}
        self._made = {name: (backward.columns(name), letter) for name, letter in backward.for_weights().items()}

    def keeps(self, sizes: Mapping[str, int]) -> dict[str, int]:
        """The widths of the arrays over all steps that forward leaves for backward, besides the output."""
        return {name: count * sizes[letter] for name, (count, letter) in self._kept.items()}

    def makes(self, sizes: Mapping[str, int]) -> dict[str, int]:
        """The widths of the arrays that backward leaves for the weights' gradients, besides the gates' gradient."""
        return {name: count * sizes[letter] for name, (count, letter) in self._made.items()}

    def sums(self, name: str) -> bool:
        """Whether backward itself sums up the gradient of a parameter, and so needs an array for it."""
        return name not in self._weights

    def fields(self, call: LayerCall, d: int, widths: Mapping[str, int], backward: bool) -> list[int]:
        """The fields of a direction, without addresses."""
        arrays = self.passes[backward].arrays
        sizes = [call.sizes[letter] for letter in self._letters]
        own = [call.steps, call.batch, *sizes, *[0] * (len(_LETTERS) - len(sizes)), *call.circumstances(d)]
        own += [0] * (len(_FIELDS) - len(own) + _engine.MAX_ARRAYS)
        return [*own, *(widths.get(name, 0) for name in arrays), *[0] * (_engine.MAX_ARRAYS - len(arrays))]

    def run(self, fields: Sequence[int], backward: bool) -> None:
        """Run a pass, given the fields of all directions with their addresses."""
        _engine.loop(self.handles[backward], *fields)

    def pack(self, fields: Sequence[int], memory: int) -> int:
        """Pack one direction's weights for forward into ``memory``; at address 0 nothing is packed. Returns the bytes
        that they take."""
        return _engine.pack(self.handles[0], memory, *fields)


def _unwritten(cell: type[Cell], backward: Layout) -> frozenset[str]:
    """The arrays of gradients of which backward writes only some columns, or none; they must be zeros before. One
    reason is a gate that only decides a condition."""
    columns = {"grad_gates_x": len(cell.gates), "grad_bias_ih": len(cell.gates)}
    columns |= {f"grad_bias_{name}": len(each.rows) for name, each in cell.every_product.items() if each.bias}
    columns |= {f"grad_weight_{name}": len(rows) for name, rows in cell.parameters.items()}
    written = {(each.slot.array, each.slot.column) for results in backward.results for each in results}
    written |= {(array, column) for each in backward.sums for array, column, _ in each.to}
    found = {array: sum(name == array for name, _ in written) for array in columns}
    return frozenset(array for array, count in columns.items() if found[array] < count)


def _places(which: Pass) -> dict[str, int]:
    """The position of each field, by name."""
    return {name: k for k, name in enumerate([*_FIELDS, *which.arrays])}


@cache
def _compiled(cell: type[Cell], precision: str, kept: tuple[str, ...], target: str) -> Compiled:
    cell = keeping(cell, kept)
    both = passes(cell, library.WORKING[precision], kept)
    handle = library.precision_handle(precision)
    return Compiled(cell, both, tuple(_engine.find_loop(handle, each.address) for each in both))


def compiled(cell: type[Cell], precision: str = "float32", kept: tuple[str, ...] = ()) -> Compiled:
    """The kernels in use for a cell. Forward leaves the ``kept`` values of all steps.

    Raises:
        RuntimeError: the extension was built without the cell, and the cell cannot be compiled.
    """
    return _compiled(cell, precision, kept, library.target)
