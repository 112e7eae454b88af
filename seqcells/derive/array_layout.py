"""The arrays and columns that each stage of a pass reads and writes.

This is a `Layout` for engines that address their own memory in the same way as the caller's arrays.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from ..cells import Cell
from .expressions import Expression
from .layout import Layout, Slot

Place = tuple[str, int, Expression]
"""The name of an array, a column of the array, and the value that the column holds."""


class ArrayLayout:
    """The places of all values of a pass. There are the arrays of a `Layout`, and also:

    * ``carried``: the states, or their gradients, that pass from step to step, in the order of the cell's states;
    * ``before.<state>``: the array ``after.<state>``, one step earlier;
    * ``units``: the number of units;
    * ``kept``: values that a later stage of the same step reads; ``kept_numbers``: such values without units;
    * ``operand.<k>``: the k-th operand of products, one array for each number of heads; ``product.<k>``: the result of
      the k-th product;
    * ``sums``, ``sums_numbers``: values that are summed over all steps.

    A summed value that an array also holds for all steps is summed from that array. A parameter may be shared by all
    sequences of a step, or by all units too; its gradient is stored for each sequence and unit.

    Attributes:
        reads, writes: the places that each stage reads and writes, grouped by array.
        arrays: the axes and the number of columns of each array.
        operand_of: the number of each product's operand.
        sums: for each sum the array and column of its terms, and the parameters' columns that get it, with their axes.
    """

    layout: Layout
    operand_of: list[int]
    sums: list[tuple[Any, ...]]
    writes: list[list[Place]]
    reads: list[list[Place]]
    arrays: Mapping[str, tuple[str, int]]

    def __init__(self, cell: type[Cell], layout: Layout) -> None:
        self.layout, self._states = layout, list(layout.program.carried)
        self._stage = {v: k for k, s in enumerate(layout.program.stages) for v in (*s.gathers, *s.block)}
        self._products = {v: (k, b) for k, m in enumerate(layout.products) for b, v in enumerate(m.values)}
        vectors = [each.value for each in layout.kept if each.value.unit_axis]
        numbers = [each.value for each in layout.kept if not each.value.unit_axis]
        self._kept = {v: ("kept", k) for k, v in enumerate(vectors)}
        self._kept |= {v: ("kept_numbers", k) for k, v in enumerate(numbers)}
        operands: dict[tuple[int, int], int] = {}
        for m in layout.products:
            operands.setdefault((m.operand, m.heads), len(operands))
        self._operands = {k: layout.operands[operand].values for (operand, _), k in operands.items()}
        self.operand_of = [operands[m.operand, m.heads] for m in layout.products]
        self._accumulated: dict[int, tuple[str, int]] = {}
        self.sums = [(*self._summed(k), each.to) for k, each in enumerate(layout.sums)]
        stages = range(len(layout.blocks))
        self.writes = [_by_array(self._writes(k)) for k in stages]
        self.reads = [_by_array(self._reads(k)) for k in stages]
        self.arrays = self._arrays(cell)

    def _summed(self, k: int) -> tuple[str, int]:
        """The place of a sum's terms: an array of all steps, or an array into which each step adds."""
        value = self.layout.sums[k].value
        for results in self.layout.results:
            for each in results:
                if each.value is value and each.slot.axes == "TBH" and not each.adds:
                    return each.slot.array, each.slot.column
        array = "sums" if value.unit_axis else "sums_numbers"
        column = sum(name == array for name, _ in self._accumulated.values())
        self._accumulated[k] = array, column
        return array, column

    def _writes(self, k: int) -> Iterable[Place]:
        for each in self.layout.results[k]:
            if each.slot.where == "SUM":
                if each.slot.column in self._accumulated:
                    yield *self._accumulated[each.slot.column], each.value
            elif each.slot.where == "CARRIED":
                state = each.slot.array.rpartition(".")[2]
                yield "carried", self._column_of_state(state), each.value
            else:
                yield each.slot.array, each.slot.column, each.value
        for value, (array, column) in self._kept.items():
            if self._stage.get(value, 0) == k and value not in self._products:
                yield array, column, value
        for operand, values in self._operands.items():
            if max(self._stage.get(v, 0) for v in values) == k or any(self._stage.get(v, 0) == k for v in values):
                for column, value in enumerate(values):
                    if self._stage.get(value, 0) == k:
                        yield f"operand.{operand}", column, value

    def _reads(self, k: int) -> Iterable[Place]:
        made = {*self.layout.blocks[k], *(v for _, v in self.layout.reductions)}  # reductions are in no array
        needed = [arg for v in self.layout.blocks[k] for arg in v.inner] + [v for _, _, v in self.writes[k]]
        for v in dict.fromkeys(needed):
            if v not in made and v.op != "constant" and not (v.op == "leaf" and v.args[0] in ("valid", "reset")):
                yield *self._place(v), v

    def _place(self, v: Expression) -> tuple[str, int]:
        if v in self._products:
            return f"product.{self._products[v][0]}", self._products[v][1]
        if v in self._kept and v.inner:
            return self._kept[v]
        slot = self.layout.slots[v]
        match slot.where:
            case "CARRIED":
                return "carried", self._column_of_state(v.args[0].rpartition(".")[2])
            case "COUNT":
                return "units", 0
            case "BEFORE":
                return v.args[0], 0
        return slot.array, slot.column

    def _column_of_state(self, state: str) -> int:
        return [name.rpartition(".")[2] for name in self._states].index(state)

    def _arrays(self, cell: type[Cell]) -> Mapping[str, tuple[str, int]]:
        slots: dict[str, Slot] = {s.array: s for s in self.layout.slots.values() if s.where in ("GATE", "GIVEN")}
        slots |= {e.slot.array: e.slot for each in self.layout.results for e in each if e.slot.where == "GIVEN"}
        columns: dict[str, int] = {}
        units: dict[str, str] = {}
        for array, column, value in (place for stage in (*self.reads, *self.writes) for place in stage):
            columns[array] = max(columns.get(array, 0), column + 1)
            units[array] = value.unit_axis
        whole = {"gates_x": len(cell.gates), "bias_hh": len(cell.recurrent_gates)}
        whole |= {f"weight_{name}": len(rows) for name, rows in cell.parameters.items()}
        whole |= {f"bias_{name}": len(rows) for name, rows in cell.rows_of_products().items()}
        whole |= {f"grad_{name}": count for name, count in whole.items()}
        axes = {"units": "", "kept_numbers": "B", "sums_numbers": "B"}
        found = {}
        for array, count in columns.items():
            if array.startswith("before."):
                found[array] = "TBH", 1
            else:
                of = slots[array].axes if array in slots else axes.get(array, "BH")
                if array.startswith("grad_") and of in ("T", "TH"):
                    of = f"TB{units[array] if of == 'T' else 'H'}"
                found[array] = of, whole.get(array, count)
        return found


def columns(places: Iterable[Place]) -> dict[str, tuple[int, ...]]:
    """The columns of each array that occur among the places."""
    found: dict[str, tuple[int, ...]] = {}
    for array, column, _ in places:
        found[array] = (*found.get(array, ()), column)
    return found


def _by_array(places: Iterable[Place]) -> list[Place]:
    """The places grouped by array, in the order in which arrays occur first, and sorted by column."""
    found: dict[str, list[Place]] = {}
    for place in places:
        found.setdefault(place[0], []).append(place)
    return [place for each in found.values() for place in sorted(each, key=lambda place: place[1])]
