"""Print in C++: a cell's two passes as structs, for the loop of kernels/cpu."""

import math
import re
import textwrap
from collections.abc import Iterable, Sequence

from ..cells import Cell
from ..cells.activations import ACTIVATIONS, Activation
from . import kernel_cache
from .derivation import derive
from .expressions import Expression, Product
from .identifiers import identifiers
from .layout import Kept, Layout, Slot, layouts, refuse
from .print_one_stage import equations_of, formula

# Keywords of C++ that are valid names in Python.
CPP_WORDS = """asm auto bool case catch char const default delete do double enum explicit export extern false float
friend goto inline int long mutable namespace new operator private protected public register short signed sizeof
static struct switch template this throw true typedef typename union unsigned using virtual void volatile"""
RESERVED = {*ACTIVATIONS, *CPP_WORDS.split(), "v", "T", "V", "valid", "reset"}
"""Names that values cannot have: names that the printed functions use themselves, and keywords of C++."""
ARGUMENTS = "[[maybe_unused]] V* v, [[maybe_unused]] Valid valid, [[maybe_unused]] Reset reset"
AXES = {"TBH": "TBH", "BH": "BH", "H": "H", "TB": "TB", "B": "B", "": "NONE"}


STRUCT = "Equations"
"""The name of every cell's struct. A cell's own name could collide with a name of the headers."""


CELLS = """
SEQCELLS_CELL_BEGIN

{structs}

SEQCELLS_CELL_END

#define SEQCELLS_CELLS(CELL) {rows}
"""


def cpp_cells(cells: Sequence[type[Cell]]) -> str:
    """The text of kernels/cpu/cells.h below its head: each cell's struct in a namespace, and a list of all structs."""
    structs, rows = [], []
    for cell in cells:
        text = cpp_struct(cell, layouts(cell, derive(cell, reset=True, lengths=True, kept=())))
        space = re.sub(r"\W+", "_", cell.name).strip("_")
        about = "".join(f"// {line}".rstrip() + "\n" for line in equations_of(cell).splitlines())
        structs.append(f"{about}namespace {space} {{\n{text}}}")
        rows.append(f'CELL("{kernel_cache.key(text)}", {space}::{STRUCT})')
    return CELLS.format(structs="\n\n".join(structs), rows=" ".join(rows))


def cpp_struct(cell: type[Cell], both: tuple[Layout, Layout]) -> str:
    """The text of a cell's struct: ``Forward`` and ``Backward``, laid out with all boundaries.

    Raises:
        DerivationError: the cell has a stream that all sequences of a step share, which the CPU's loop cannot read.
    """
    of_steps = any(slot.axes not in AXES for layout in both for slot in layout.slots.values())
    refuse(cell, {"streams that all sequences of a step share": of_steps}, "no loop on the CPU runs that yet")
    passes = zip(("Forward", "Backward"), both, strict=True)
    parts = [_Printed(layout).struct(kind, len(cell.gates)) for kind, layout in passes]
    return f"struct {STRUCT} {{\n{textwrap.indent(chr(10).join(parts), '    ')}\n}};\n"


class _Printed:
    """The C++ text of one pass."""

    def __init__(self, layout: Layout) -> None:
        self.layout, self.program, self.sizes = layout, layout.program, layout.stages
        self.stages = layout.blocks
        self.arrays = layout.arrays
        written = [each.value for results in layout.results for each in results]
        written += [each.value for each in layout.kept] + [v for each in layout.operands for v in each.values]
        gathers = [v for stage in self.program.stages for v in stage.gathers]
        leaves = [v for v in layout.slots if v.op == "leaf"]
        # A condition is not stored as a number: each value that needs it repeats the comparison.
        numbers = [v for block in self.stages for v in block if not v.unit_axis and v.op != ">"]
        numbered = dict.fromkeys(v for v in [*leaves, *gathers, *written, *numbers] if v.op != "constant")
        self.number = {v: k for k, v in enumerate(numbered)}
        self.names = self._names()
        every = [v for block in self.stages for u in block for v in (u, *u.inner)]
        numbers = {v: f"T({_number(v.args[0])})" for v in every if v.op == "constant"}
        masks = {v: v.args[0] for v in every if v.op == "leaf" and v.args[0] in ("valid", "reset")}
        self.spelled = {**self.names, **numbers, **masks}
        self.slots = dict(layout.slots)
        self.products: dict[Expression, Slot] = {}
        self._gathered()

    def _names(self) -> dict[Expression, str]:
        """The names of all values that are in memory, have a name in the cell's source, or are used more than once."""
        values = dict.fromkeys([*self.number, *(v for block in self.stages for v in block)])
        used = [arg for v in values for arg in v.inner]
        named = [v for v in values if v in self.number or v in self.program.names or used.count(v) > 1]
        return identifiers(named, lambda v: self.program.names.get(v) or self._made_up(v), RESERVED)

    def _made_up(self, v: Expression) -> str:
        if v.op == "leaf":
            return v.args[0]
        if isinstance(v.op, Product):
            weight = v.op.weight.removeprefix("weight_")
            return f"back_{weight}" if v.op.transposed else f"{weight}_{v.op.blocks[0]}"
        return f"{v.op.name}_of" if isinstance(v.op, Activation) else "t"

    def _gathered(self) -> None:
        for k, each in enumerate(self.layout.products):
            for block, v in enumerate(each.values):
                self.products[v] = Slot("PRODUCT", "BH", str(k), block)
                self.slots.setdefault(v, self.products[v])
        for k, (_, v) in enumerate(self.layout.reductions):
            self.slots[v] = Slot("NUMBER", "B", column=k)

    def struct(self, kind: str, gates: int) -> str:
        """The text of the pass's struct."""
        layout = self.layout
        kept = ", ".join(
            f"{{{_bool(k.twice)}, {_bool(k.bounded)}, {', '.join(map(str, self._operand_of(k)))}}}" for k in layout.kept
        )
        operands = ", ".join(
            f"{{{len(o.values)}, {{{_numbers(self.number[v] for v in o.values)}}}, {{{_numbers(o.stages)}}},"
            f" {self._letter(o.letter)}, {_bool(o.twice)}}}"
            for o in layout.operands
        )
        products = ", ".join(
            f"{{{m.stage}, {self.arrays.index(m.weight)}, {m.operand}, {m.of[0]}, {len(m.of)}, {m.heads},"
            f" {_bool(m.transposed)}}}"
            for m in layout.products
        )
        reductions = ", ".join(
            f"{{{stage}, Reduced::{v.op.name.upper()}, {self._slot(v.args[0])}, {self._mean_of(v)},"
            f" {self._letter(v.args[0].unit_axis)}}}"
            for stage, v in layout.reductions
        )
        totals = ", ".join(
            f"{{{self.arrays.index(array)}, {column}, {_bool(axes != '')}, {k}, {_bool(bool(each.value.unit_axis))},"
            f" {self._letter(each.letter)}}}"
            for k, each in enumerate(layout.sums)
            for array, column, axes in each.to
        )
        lines = [
            f"static constexpr int values = {len(self.number)}, stages = {self.sizes.count};",
            f"static constexpr int letters = {len(self.sizes.letters)}, gates_at = {layout.gates_at};",
            f"static constexpr int sums = {len(layout.sums)}, gates = {gates}, by = {1 if kind == 'Forward' else -1};",
            f"static constexpr int ahead = {8 if kind == 'Forward' else 4};",
            f"static constexpr bool side_by_side = {_bool(kind == 'Forward')};",
            _list("int", "letter", [str(self._letter(each)) for each in self.sizes.letter]),
            _list("int", "follows", map(str, self.sizes.follows)),
            _list("const char* const", "names", [f'"{name}"' for name in self.arrays]),
            f"static constexpr std::array<Kept, {len(layout.kept)}> keep{{{{{kept}}}}};",
            f"static constexpr std::array<Multiplicand, {len(layout.operands)}> operands{{{{{operands}}}}};",
            f"static constexpr std::array<Multiplied, {len(layout.products)}> products{{{{{products}}}}};",
            f"static constexpr std::array<Reduction, {len(layout.reductions)}> reductions{{{{{reductions}}}}};",
            f"static constexpr std::array<Total, {sum(len(s.to) for s in layout.sums)}> totals{{{{{totals}}}}};",
        ]
        reads, results = zip(*map(self._places, range(len(self.stages))), strict=True)
        for name, lists in (("reads", reads), ("results", results)):
            lines += [_list("Slot", f"{name}{k}", slots) for k, slots in enumerate(lists)]
            each = ", ".join(f"{name}{k}" for k in range(len(lists)))
            lines.append(f"static constexpr auto {name} = std::make_tuple({each});")
        onward = self._onward()
        lines.append(_list("Onward", "onward", [f"{{{a}, {b}, {letter}}}" for a, b, letter in onward]))
        for k, block in enumerate(self.stages):
            lines += self._functions(k, block)
        for name in ("row", "units"):
            cases = "\n".join(
                f"    if constexpr (K == {k}) {name}{k}(v, valid, reset);" for k in range(len(self.stages))
            )
            head = "template <int K, class V, class Valid, class Reset>\n"
            lines.append(f"{head}SEQCELLS_INLINE static void {name}(V* v, Valid valid, Reset reset) {{\n{cases}\n}}")
        return f"struct {kind} {{\n{textwrap.indent(chr(10).join(lines), '    ')}\n}};"

    def _mean_of(self, reduction: Expression) -> int:
        """The number of the reduction that is the mean of the same values, which a variance reuses; -1 if none is."""
        if reduction.op.name != "variance":
            return -1
        others = enumerate(v for _, v in self.layout.reductions)
        return next((k for k, v in others if v.op.name == "mean" and v.args == reduction.args), -1)

    def _operand_of(self, kept: Kept) -> tuple[int, int]:
        """The operand and its block with the same value and lifetime as a kept value; the operand is -1 if none has."""
        for k, operand in enumerate(self.layout.operands):
            first = not self.sizes.before[self.sizes.making(kept.value)]
            if operand.twice and first and kept.value in operand.values and kept.value.unit_axis == operand.letter:
                return k, operand.values.index(kept.value)
        return -1, 0

    def _letter(self, letter: str) -> int:
        """The number of the size that a letter names."""
        return self.sizes.letters.index(letter)

    def _onward(self) -> list[tuple[int, int, int]]:
        """For each carried value: the last stage's value, the first stage's value that it becomes, the size number."""
        pairs = []
        for leaf, slot in self.slots.items():
            if slot.where == "CARRIED":
                value = self.program.carried[leaf.args[0]].value
                pairs.append((self.number[value], self.number[leaf], self._letter(leaf.unit_axis)))
        return pairs

    def _places(self, k: int) -> tuple[list[str], list[str]]:
        """The slots that a stage reads, and the slots that it writes."""
        made = set(self.stages[k])
        needed = [v for v in self.stages[k] for v in v.inner] + [r.value for r in self.layout.results[k]]
        # A value may only be passed on, to a later stage or to products.
        needed += [each.value for each in self.layout.kept if self.sizes.making(each.value) == k]
        for each in self.layout.operands:
            needed += [v for v, stage in zip(each.values, each.stages, strict=True) if stage == k]
        if self.sizes.follows[k] >= 0:
            letter = self.sizes.letter[k]
            needed += [onward.value for onward in self.program.carried.values() if onward.axes == f"B{letter}"]
        reads = [v for v in dict.fromkeys(needed) if v not in made and v.op != "constant"]
        reads = [v for v in reads if v.op != "leaf" or v.args[0] not in ("valid", "reset")]
        results = [self._slot(r.value, r.slot, r.adds) for r in self.layout.results[k]]
        results += [self._slot(each.value) for each in self.layout.kept if self.sizes.making(each.value) == k]
        # The stage that makes a kept product reads it as the product, not from the memory of kept values.
        here = {v: slot for v, slot in self.products.items() if self.sizes.making(v) == k}
        return [self._slot(v, here.get(v)) for v in reads], results

    def _slot(self, v: Expression, slot: Slot | None = None, adds: bool = False) -> str:
        slot = slot or self.slots[v]
        array = int(slot.array) if slot.where == "PRODUCT" else 0
        if slot.array in self.arrays:
            array = self.arrays.index(slot.array)
        initial = 0
        if slot.where == "BEFORE":
            initial = self.arrays.index(f"initial.{v.args[0].removeprefix('before.')}")
        column = self._letter(slot.array) if slot.where == "COUNT" else slot.column
        parts = [self.number[v], f"Where::{slot.where}", f"Axes::{AXES[slot.axes]}", array, column, initial]
        return f"{{{', '.join(map(str, parts))}, {_bool(slot.working)}, {_bool(adds)}}}"

    def _functions(self, k: int, block: Sequence[Expression]) -> list[str]:
        """Two functions for a stage: one for the values of a row (one number each), one for the values of each unit."""
        row = [v for v in block if not v.unit_axis]
        units = [v for v in block if v.unit_axis or v.op == ">"]
        return [self._function(f"row{k}", row), self._function(f"units{k}", units)]

    def _function(self, name: str, block: Sequence[Expression]) -> str:
        own = set(block)
        read = dict.fromkeys(a for v in block for a in v.inner if a not in own and a in self.number)
        lines = [f"const V {self.names[a]} = v[{self.number[a]}];" for a in read if a.args[0] not in ("valid", "reset")]
        for v in block:
            if v in self.names:
                lines.append(
                    f"const auto {self.names[v]} = {formula(v, self.spelled, whole=True, number='V{{}} + {}')};"
                )
        lines += [f"v[{self.number[v]}] = {self.names[v]};" for v in block if v in self.number]
        if any("T(" in line for line in lines):
            lines.insert(0, "using T = scalar<V>;")
        head = "template <class V, class Valid, class Reset>\n"
        head += f"SEQCELLS_INLINE static void {name}({ARGUMENTS}) {{\n"
        return head + textwrap.indent("\n".join(lines), "    ") + "\n}"


def _number(value: float) -> str:
    if math.isfinite(value):
        return repr(value)
    return '__builtin_nan("")' if math.isnan(value) else f"{'-' * (value < 0)}__builtin_inf()"


def _numbers(values: Iterable[int]) -> str:
    return ", ".join(map(str, values))


def _bool(value: bool) -> str:
    return str(bool(value)).lower()


def _list(kind: str, name: str, items: Iterable[str]) -> str:
    items = [*items]
    if all(len(item) < 3 for item in items) and items:
        return f"static constexpr std::array<{kind}, {len(items)}> {name}{{{', '.join(items)}}};"
    body = ",\n    ".join(items)
    return (
        f"static constexpr std::array<{kind}, {len(items)}> {name}{{{{\n    {body}\n}}}};"
        if items
        else (f"static constexpr std::array<{kind}, 0> {name}{{}};")
    )
