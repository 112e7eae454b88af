"""The tables of a cell's passes without kernels in Triton, for a plan that has its own kernels."""

from functools import cache

from ....cells import Cell
from ....derive.array_layout import ArrayLayout, columns
from ....derive.layout import Layout
from ...cuda import source
from ..device.staged_tables import Multiplied, Pass, Stage, Staged, Sum, Term


@cache
def cluster_tables(cell: type[Cell], kept: tuple[str, ...] = ()) -> Staged:
    """The tables that say where the passes printed by kernels/cuda have their values.

    Raises:
        RuntimeError: kernels/cuda prints no passes of the cell.
    """
    return Staged(*(_pass(cell, layout) for layout in source.printed(cell, kept).layouts))


def _pass(cell: type[Cell], layout: Layout) -> Pass:
    places = ArrayLayout(cell, layout)
    stages = zip(places.reads, places.writes, strict=True)
    products = zip(layout.products, places.operand_of, strict=True)
    return Pass(
        function=None,
        arrays=places.arrays,
        stages=tuple(Stage(columns(reads), columns(writes), ()) for reads, writes in stages),
        products=tuple(Multiplied(m.stage, m.weight, operand, m.of, m.transposed) for m, operand in products),
        sums=tuple(Sum(array, column, to) for array, column, to in places.sums),
        terms=tuple(Term(t.weight, t.block, t.d, t.operand) for t in layout.terms),
    )
