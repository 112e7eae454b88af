"""Writes ``docs/cells.md``: each cell with its equations, paper, parameters, stages and times."""

import inspect
import textwrap
from collections.abc import Iterator
from pathlib import Path

from seqcells.cells import BUILT_IN, Cell
from seqcells.derive.derivation import derive
from seqcells.derive.transformed_cells import for_engines

from .. import machine
from .modules import cell_named, every_name
from .report import TARGETS, Report, Row

PAGE = Path(__file__).parents[2] / "docs" / "cells.md"
BEGIN = """# The cells

{count} cells, each in a file of its own in `seqcells/cells/`. {built} are layers of the package (`seqcells.LSTM`).
The others become layers by `LEM, LEMCell = seqcells.define(seqcells.cells.LEM)`. All have what
`seqcells.RecurrentLayer` has: several layers, two directions, packed input, `lengths=`, `reset=`, `keep=`.

`python -m benchmarks.cells page` writes this page, from the cells' files and from the last result of
`python -m benchmarks.cells --save`.

Letters: T time steps, N sequences, H hidden units, F features of the input. σ is the sigmoid. Products are of matrices
with vectors (`W x`, `U h`) and of vectors unit by unit (`f c`). Biases are left out: every weight of a product has one,
unless the cell says otherwise. A prime marks what is new after the step.
"""
TIMES = """
## Times

{machine}, {date}, commit {commit}, float32; ours by `backend="auto"`. Columns are batch × hidden units × time steps,
inference and training (forward and backward). “× loop” tells how many times as fast ours is as a loop in torch of the
same equations and weights: torchrecurrent's layer, or, with a star, our own reference. “× LSTM” is its time over that
of `seqcells.LSTM`. Bold is below what we aim at: {aims}.
"""


def write(results: Path | None) -> None:
    """Write the page; without results, the page has no times."""
    PAGE.write_text(page(None if results is None else Report.load(results)))
    print(f"written to {PAGE}")


def page(report: Report | None) -> str:
    """The text of the page."""
    names = every_name()
    parts = [BEGIN.format(count=len(names), built=len(BUILT_IN))]
    if report is not None:
        parts.append(_times(report))
    parts += ["\n## Equations\n", *map(_section, names)]
    return "\n".join(part.rstrip("\n") + "\n" for part in parts)


def _times(report: Report) -> str:
    aims = ", ".join(f"{aim:g}× for a batch of {batch}" for batch, aim in TARGETS.items())
    told = {"machine": machine.title(report.machine), "date": report.date[:10], "commit": report.commit}
    cases = list(dict.fromkeys((r.batch, r.hidden, r.steps, r.mode) for r in report.rows))
    lines = [TIMES.format(aims=aims, **told)]
    heads = [f"{b} × {h} × {t} {mode}" for b, h, t, mode in cases]
    lines.append("| cell | " + " | ".join(f"{head}: × loop | × LSTM" for head in heads) + " |")
    lines.append("|---" * (1 + 2 * len(cases)) + "|")
    rows = {(r.cell, r.batch, r.hidden, r.steps, r.mode): r for r in report.rows}
    for name in dict.fromkeys(r.cell for r in report.rows):
        found = [rows.get((name, *case)) for case in cases]
        lines.append(f"| {name} | " + " | ".join(f"{_ratio(row)} | {_to_lstm(row)}" for row in found) + " |")
    return "\n".join(lines)


def _ratio(row: Row | None) -> str:
    if row is None:
        return "–"
    star = "" if row.rival == "torchrecurrent" else "\\*"
    text = f"{row.ratio:.1f}{star}"
    return text if row.ratio >= TARGETS.get(row.batch, 0) else f"**{text}**"


def _to_lstm(row: Row | None) -> str:
    return "–" if row is None else f"{row.to_lstm:.2f}"


def _section(name: str) -> str:
    cell = cell_named(name)
    where = f"`seqcells/cells/{cell.__module__.rpartition('.')[2]}.py`"
    gathers = sum(1 for stage in derive(for_engines(cell)).forward.stages[1:] if stage.gathers)
    stages = f"{max(gathers, 1)} stage{'s' * (gathers > 1)} a step"
    facts = [f"Parameters: {', '.join(_parameters(cell))}", f"states: {', '.join(cell.states)}", stages, where]
    return f"\n### {name}\n\n{_equations(cell)}\n\n{'; '.join(facts)}.\n"


def _equations(cell: type[Cell]) -> str:
    """The docstring, whose indented equations are also a Markdown code block. A cell without such equations shows its
    code."""
    doc = inspect.getdoc(cell) or ""
    if "    " in doc:
        return doc
    lines = textwrap.dedent(inspect.getsource(cell.step)).splitlines()
    code = "\n".join(line for line in lines if not line.startswith("@"))
    return f"{doc}\n\n```python\n{code}\n```"


def _parameters(cell: type[Cell]) -> Iterator[str]:
    """Each parameter with its shape as a formula."""

    def rows(count: int, letter: str) -> str:
        return letter if count == 1 else f"{count} {letter}"

    if cell.gates:
        yield f"`weight_ih` ({rows(len(cell.gates), 'H')}, F)"
    for name, product in cell.every_product.items():
        out, into = (letter if len(letter) == 1 else f"({letter})" for letter in product.axes)
        heads = f"{into} / {product.heads}" if product.heads > 1 else into
        yield f"`weight_{name}` ({rows(len(product.rows), out)}, {heads})"
    for name, declared in cell.parameters.items():
        first = next(iter(declared))
        yield f"`weight_{name}` ({len([*declared])}, {cell.row_sizes[first]})"
    for name in cell.scalars:
        yield f"`weight_{name}` (1,)"
