"""Where each stage of a pass has its values, by the names and columns of arrays: a `Layout` for engines that address
all memory alike, their own too."""

from collections.abc import Iterable, Mapping
from typing import Any

from ..cells import Cell
from .expressions import Expression
from .layout import Layout, Slot

Place = tuple[str, int, Expression]
"""An array, a column of it, and the value that is there."""


class Places:
    """Besides the arrays of a `Layout` there are

    * ``carried``: the states, or their gradients, that pass from step to step, in the order of the cell's states;
    * ``before.<state>``: the array ``after.<state>``, a step earlier;
    * ``units``: the number of units;
    * ``kept``, and of numbers of a row ``kept_numbers``: what a later stage of the step reads;
    * ``operand.<k>``: what products read, once for each number of heads; ``product.<k>``: what the k-th one gives;
    * ``sums``, ``sums_numbers``: what is added up over all steps.

    A value that is summed up and in the history of all steps, too, is summed up from there. The gradient of what
    is the same for all sequences of a step, or for all units too, is there for each of them.

    Attributes:
        reads, writes: of each stage, by array.
        arrays: axes and number of columns of each.
        operand_of: of each product the number of its operand.
        sums: array, column, and the parameters' columns that get the sum of it, with their axes.
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
        """Where a sum's terms are: in a history, or added up already."""
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
        made = {*self.layout.blocks[k], *(v for _, v in self.layout.reductions)}  # the latter in no array
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
    """The columns of each array that some places have."""
    found: dict[str, tuple[int, ...]] = {}
    for array, column, _ in places:
        found[array] = (*found.get(array, ()), column)
    return found


def _by_array(places: Iterable[Place]) -> list[Place]:
    """Those of one array together, in the order in which arrays are met first."""
    found: dict[str, list[Place]] = {}
    for place in places:
        found.setdefault(place[0], []).append(place)
    return [place for each in found.values() for place in sorted(each, key=lambda place: place[1])]
