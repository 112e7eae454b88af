"""Print in Triton, for cells of several stages: a function for each stage, and tables of the arrays that it uses.

Stages are cut at products alone. A function has whole rows, so it computes reductions itself.
"""

import json
import keyword
import re
import textwrap
from collections.abc import Iterable, Sequence

from ..cells import Cell
from ..cells.activations import ACTIVATIONS, Activation, where
from ..cells.units import Reduction
from .array_layout import ArrayLayout, Place, columns
from .derivation import derive
from .expressions import Expression, Product
from .identifiers import identifiers
from .layout import layouts, refuse
from .print_one_stage import equations_of, formula, number_in_python
from .program import cut_at_products

TEXT = """
import triton
import triton.language as tl

from seqcells.kernels.triton.device.activations import {activations}
from seqcells.kernels.triton.device.reductions import reduced
from seqcells.kernels.triton.device.staged_tables import Multiplied, Pass, Stage, Staged, Sum, Term


{functions}


CELLS = {{
{rows}
}}
"""

RESERVED = {*ACTIVATIONS, *keyword.kwlist, "reduced", "stage", "read", "valid", "boundary", "row", "numbers"}
RESERVED |= {"tl", "triton", "CELLS", "Multiplied", "Pass", "Stage", "Staged", "Sum", "Term"}
"""Names that values cannot have: names that the printed text uses itself, and keywords of Python."""
MASKS = {"valid": "valid", "reset": "boundary"}
ARGUMENTS = "read, valid, boundary, row"
WIDTH = 116
"""The most characters of a line in a function's body, indentation aside."""
PASS_WIDTH, STAGE_WIDTH = 107, 99
"""The most characters of a line about a pass, and about a stage, in the printed table, indentation aside."""


def triton_stages(cells: Sequence[type[Cell]], kept: Sequence[str] = ()) -> str:
    """The text of kernels/triton/device/staged_cells.py below its head.

    The text imports by absolute names, so with any cells it can also be a file elsewhere.

    Args:
        kept: names of the kept values that the forward pass returns for all steps. Default: none

    Raises:
        DerivationError: a cell's `step` cannot be derived or laid out, or no Triton plan runs such a cell.
    """
    passes = [_passes(cell, kept) for cell in cells]
    values = [v for both in passes for each in both for block in each.blocks for v in block]
    used = {v.op.name for v in values if isinstance(v.op, Activation) and not isinstance(v.op, Reduction)}
    return TEXT.format(
        activations=", ".join(sorted(used)),
        functions="\n\n\n".join(text for both in passes for each in both for text in each.functions()),
        rows="\n".join(_row(cell, both) for cell, both in zip(cells, passes, strict=True)),
    )


def _passes(cell: type[Cell], kept: Sequence[str]) -> "tuple[_Printed, _Printed]":
    derived = derive(cell, reset=True, lengths=True, kept=kept)
    cut = derived._replace(forward=cut_at_products(derived.forward), backward=cut_at_products(derived.backward))
    forward, backward = layouts(cell, cut)
    lacking = {
        "no gates": not cell.gates,
        "sizes besides H": len(forward.stages.letters) > 1,
        "an output that is not its first state": cell.output not in ("", cell.states[0]),
    }
    refuse(cell, lacking, "no plan of Triton's runs that yet")
    of_forward, of_backward = ArrayLayout(cell, forward), ArrayLayout(cell, backward)
    return _Printed(cell, "forward", of_forward), _Printed(cell, "backward", of_backward)


def _row(cell: type[Cell], both: "Sequence[_Printed]") -> str:
    lines = [f"{json.dumps(cell.name)}: Staged(", *(textwrap.indent(each.row(), "    ") for each in both), "),"]
    return textwrap.indent("\n".join(lines), "    ")


class _Printed:
    """The Triton text of one pass."""

    def __init__(self, cell: type[Cell], kind: str, places: ArrayLayout) -> None:
        self.cell, self.kind, self.places = cell, kind, places
        self.of = re.sub(r"\W|^(?=\d)", "_", cell.name)
        self.name = f"{self.of}_{kind}"
        self.blocks = places.layout.blocks
        self.levels = [_levels(block) for block in self.blocks]
        self.names = self._names()

    def _names(self) -> dict[Expression, str]:
        """The names of values that get a line of their own.

        They are read, written or reduced, have a name in the cell's source, or are used more than once. Further parts
        of expressions are named until no line is too long.
        """
        called, places = self._called(), self.places
        written = places.layout.program.names
        values = dict.fromkeys(v for block in self.blocks for u in block for v in (*u.inner, u))
        values |= dict.fromkeys(v for writes in places.writes for _, _, v in writes)
        reduced = {v for v in values if isinstance(v.op, Reduction)} | {v.args[0] for v in values if v.gathers}
        kept = {v for writes in places.writes for _, _, v in writes} | reduced
        used = [arg for v in values for arg in v.inner]
        spelled = {v: number_in_python(v.args[0]) for v in values if v.op == "constant"}
        spelled |= {v: MASKS[v.args[0]] for v in values if v.op == "leaf" and v.args[0] in MASKS}
        # A stage may read a leaf, and only pass it on.
        leaves = dict.fromkeys(v for reads in places.reads for _, _, v in reads)
        values = [v for v in dict.fromkeys([*leaves, *values]) if v not in spelled]

        def named(v: Expression) -> bool:
            return not v.inner or v.gathers or v in written or v in kept or used.count(v) > 1

        wanted = [v for v in values if named(v)]
        while True:
            names = identifiers(wanted, lambda v: called.get(v) or self._made_up(v, called), RESERVED) | spelled
            long = [v for v in wanted if v.inner and not v.gathers and len(_line(v, names)) > WIDTH]
            parts = [[a for a in v.inner if a not in names] for v in long]
            longest = {max(some, key=lambda a: len(formula(a, names))) for some in parts if some}
            if not longest:
                return names
            wanted = [v for v in values if v in longest or v in wanted]

    def _called(self) -> dict[Expression, str]:
        """Candidate names of values: from the cell's source, else from the output, else from the parts of the value."""
        program, names = self.places.layout.program, {}
        leaving = "leaving_" if self.kind == "forward" else "d_before_"
        for name, output in program.carried.items():
            names[output.value] = leaving + name.rpartition(".")[2]
        for name, output in program.outputs.items():
            names.setdefault(output.value, name.removeprefix("saved."))
        names |= program.names
        for v in (v for block in self.blocks for u in block for v in (*u.inner, u)):
            names.setdefault(v, self._made_up(v, names))
        return names

    def _made_up(self, v: Expression, names: dict[Expression, str]) -> str:
        of = names.get(v.inner[-1], "") if v.inner else ""
        if v.op == "leaf":
            return "units" if v.args[0].startswith("units.") else v.args[0].removeprefix("saved.")
        if isinstance(v.op, Product):
            weight = v.op.weight.removeprefix("weight_")
            row = self.cell.every_product[weight].rows[v.op.blocks[0]]
            return f"back_{weight}" if v.op.transposed else f"{weight}_{row}"
        if v.op is where and v.args[0].op == "leaf":
            state = v.args[2].args[0] if v.args[2].op == "leaf" else ""
            if v.args[0].args[0] == "reset":
                return f"entering_{state.rpartition('.')[2]}" if state else "crossing"
            return f"valid_{of}" if of and not of.startswith("t") else "valid_part"
        if v.op == "-" and v.args[0].args == (1,) and of:
            return f"one_minus_{of}"
        return f"{v.op.name}_{of or 'of'}" if isinstance(v.op, Activation) else "t"

    def functions(self) -> list[str]:
        """The text of each stage's function, and of one function that calls the function of a given stage."""
        each = [self._function(k) for k in range(len(self.blocks))]
        cases = [f"if stage == {k}:\n    return {self.name}_{k}({ARGUMENTS})" for k in range(len(self.blocks))]
        about = _quoted(equations_of(self.cell)) if self.kind == "forward" else f"Gradients of {self.of}_forward."
        head = f"@triton.jit\ndef {self.name}(stage: tl.constexpr, {ARGUMENTS}):\n"
        return [*each, head + _indented([f'"""{about}"""', *cases])]

    def _function(self, k: int) -> str:
        products = dict.fromkeys(m.weight for m in self.places.layout.products if m.stage == k)
        follows = f"after the products with {' and '.join(products)}" if products else "before the first product"
        lines = [f'"""The values of {self.name} {follows}."""', *self._loads(k)]
        level_of, numbers = self.levels[k]
        for level in range(len(numbers) + 1):
            made = [v for v in self.blocks[k] if level_of[v] == level and not isinstance(v.op, Reduction)]
            lines += [_line(v, self.names) for v in made if v in self.names]
            if level < len(numbers):
                lines += self._reduced(level, numbers[level])
        results = [self.names[v] for _, _, v in self.places.writes[k]]
        lines += _wrapped("return (", results, ")")
        return f"@triton.jit\ndef {self.name}_{k}({ARGUMENTS}):\n" + _indented(lines)

    def _loads(self, k: int) -> list[str]:
        """Lines that assign the values that stage k reads, each line from one array."""
        lines: list[str] = []
        for array in dict.fromkeys(array for array, *_ in self.places.reads[k]):
            here = [(self.names[v], place) for place, (a, _, v) in enumerate(self.places.reads[k]) if a == array]
            lines += _unpacked("read", here)
        return lines

    def _reduced(self, level: int, values: Sequence[Expression]) -> list[str]:
        """Lines that compute all reductions of one level together."""
        kinds = [f'"{v.op.name}"' for v in values]
        of = [self.names[v.args[0]] for v in values]
        both = ("\n".join(_wrapped("(", some, ")", WIDTH - 5)) for some in (kinds, of))
        lines = _wrapped("numbers = reduced(", [str(level), *both, "row"], ")")
        return lines + _unpacked("numbers", [(self.names[v], place) for place, v in enumerate(values)])

    def row(self) -> str:
        """The pass's row of the printed table."""
        places, products = self.places, self.places.layout.products
        stages = []
        for k, (reads, writes) in enumerate(zip(places.reads, places.writes, strict=True)):
            reduced = _tuple([str(len(level)) for level in self.levels[k][1]])
            items = [_columns("reads", reads), _columns("writes", writes), f"reduced={reduced}"]
            stages.append("\n".join(_exploded("Stage(", items, ")")))
        multiplied = [
            f'Multiplied(stage={m.stage}, weight="{m.weight}", operand={places.operand_of[k]}, blocks={m.of!r}, '
            f"transposed={m.transposed})"
            for k, m in enumerate(products)
        ]
        sums = [f'Sum("{array}", {column}, {to!r})'.replace("'", '"') for array, column, to in places.sums]
        terms = [
            f'Term("{term.weight}", {term.block}, d={term.d!r}, operand={term.operand!r})'.replace("'", '"')
            for term in places.layout.terms
        ]
        arrays = [f'"{name}": ("{axes}", {columns})' for name, (axes, columns) in places.arrays.items()]
        items = [
            f"function={self.name},",
            *_exploded("arrays={", arrays, "},"),
            *_exploded("stages=(", stages, "),"),
            *_exploded("products=(", multiplied, "),", PASS_WIDTH),
            *_exploded("sums=(", sums, "),", PASS_WIDTH),
            *_exploded("terms=(", terms, "),", PASS_WIDTH),
        ]
        return "\n".join([f"{self.kind}=Pass(", *(textwrap.indent(item, "    ") for item in items), "),"])


def _levels(block: Sequence[Expression]) -> tuple[dict[Expression, int], list[list[Expression]]]:
    """The number of successive reductions that lead to each value of a block, and the reductions of each such level."""
    level: dict[Expression, int] = {}
    reductions: list[list[Expression]] = []
    for v in block:
        level[v] = max((level.get(arg, 0) for arg in v.inner), default=0)
        if isinstance(v.op, Reduction):
            level[v] += 1
            reductions += [[]] * (level[v] > len(reductions))
            reductions[level[v] - 1] = [*reductions[level[v] - 1], v]
    return level, reductions


def _quoted(text: str) -> str:
    """The text, escaped for a string in three quotation marks."""
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _line(v: Expression, names: dict[Expression, str]) -> str:
    return f"{names[v]} = {formula(v, names, whole=True)}"


def _unpacked(record: str, names: Sequence[tuple[str, int]]) -> list[str]:
    """Lines that assign parts of a record to names, with as many names in a line as fit."""
    lines, left, right = [], [], []
    for name, place in names:
        if len(", ".join([*left, name, *right, f"{record}[{place}]"])) > WIDTH - 3:
            lines.append(f"{', '.join(left)} = {', '.join(right)}")
            left, right = [], []
        left.append(name)
        right.append(f"{record}[{place}]")
    return [*lines, f"{', '.join(left)} = {', '.join(right)}"] if left else lines


def _columns(name: str, places: Iterable[Place]) -> str:
    """The columns of each array, as a keyword argument of this name whose value is a dict."""
    items = [f'"{array}": {_tuple([*map(str, some)])}' for array, some in columns(places).items()]
    return "\n".join(_wrapped(f"{name}={{", items, "}", STAGE_WIDTH))


def _tuple(items: Sequence[str]) -> str:
    return f"({', '.join(items)}{',' * (len(items) == 1)})"


def _exploded(head: str, items: Sequence[str], tail: str, alone: int = 0) -> list[str]:
    """One item in each line. No item, or a single item that fits into ``alone`` characters, takes one line in all."""
    if not items or (len(items) == 1 and len(head + items[0] + tail) <= alone):
        return [head + "".join(f"{item}," for item in items) + tail]
    return [head, *(textwrap.indent(f"{item},", "    ") for item in items), tail]


def _wrapped(head: str, items: Sequence[str], tail: str, width: int = WIDTH) -> list[str]:
    """All items in one line if they fit, else one item in each line, as the formatter does it."""
    line = f"{head}{', '.join(items)}{tail}"
    if len(items) == 1 and head in ("(", "return ("):
        line = f"{head}{items[0]},{tail}"
    return [line] if len(line) <= width else _exploded(head, items, tail)


def _indented(lines: Sequence[str]) -> str:
    return textwrap.indent("\n".join(lines), "    ")
