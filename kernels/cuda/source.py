"""The source of a cluster kernel: a cell's pass, as it is printed for the loop of kernels/cpu, and its division."""

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch

from ...cells import Cell
from ...derive.derivation import derive
from ...derive.expressions import DerivationError
from ...derive.layout import Layout, layouts, refuse
from ...derive.named_values import keeping
from ...derive.print_loop import STRUCT, cpp_struct
from .division import Division

HERE = Path(__file__).parent
KERNEL = "seqcells_cluster"
STORAGE = {torch.bfloat16: "Bfloat16", torch.float16: "Half", torch.float32: "float"}
PASSES = {"forward": "Forward", "backward": "Backward"}
MOST_ARRAYS = 64
"""The most arrays of a pass, as in pass_description.h."""

TEXT = """#include "cluster.cuh"

namespace seqcells {{

{struct}
struct Form {{
{form}
}};

}}  // namespace seqcells

SEQCELLS_KERNEL({threads}) {kernel}(SEQCELLS_CONSTANT seqcells::Arguments a) {{
    static_assert(seqcells::MAX_ARRAYS == {most});
    seqcells::Cluster<seqcells::{program}, seqcells::Form>(a).run();
}}
"""


class Printed(NamedTuple):
    """A cell's passes: their layouts, and their printed struct."""

    layouts: tuple[Layout, Layout]
    struct: str

    def layout(self, which: str) -> Layout:
        """The layout of ``"forward"`` or ``"backward"``."""
        return self.layouts[which == "backward"]


def printed(cell: type[Cell], kept: tuple[str, ...] = ()) -> Printed:
    """A cell's passes. Forward leaves the ``kept`` results.

    Raises:
        RuntimeError: no cluster runs the cell; see `why_not`.
    """
    found = _found(cell, kept)
    if isinstance(found, str):
        raise RuntimeError(f"the cluster plan cannot run the {cell.name} cell: {found}")
    return found


def why_not(cell: type[Cell], kept: tuple[str, ...] = ()) -> str | None:
    """Why no cluster runs a cell, or None."""
    found = _found(cell, kept)
    return found if isinstance(found, str) else None


@cache
def _found(cell: type[Cell], kept: tuple[str, ...]) -> Printed | str:
    try:
        whole = keeping(cell, kept) if kept else cell
        both = layouts(whole, derive(whole, reset=True, lengths=True, kept=kept))
        refuse(cell, _lacking(cell, both), "no cluster runs that yet")
        return Printed(both, cpp_struct(whole, both))
    except DerivationError as reason:
        return str(reason)


def _lacking(cell: type[Cell], both: tuple[Layout, Layout]) -> Mapping[str, bool]:
    return {
        "no gates": not cell.gates,
        "no product inside the time loop": not all(layout.products for layout in both),
        "sums over steps of numbers of a row": any(not each.value.unit_axis for layout in both for each in layout.sums),
        "sizes besides H": any(len(layout.stages.letters) > 1 for layout in both),
        "an output that is not its first state": cell.output not in ("", cell.states[0]),
        f"more than {MOST_ARRAYS} arrays": any(len(layout.arrays) > MOST_ARRAYS for layout in both),
    }


class Given(NamedTuple):
    """An array that a call has."""

    name: str
    working: bool
    """Whether the array is always float32."""
    columns: int
    """The number of columns, of units or of numbers."""
    apart: int
    """For a product's weight: numbers from direction to direction."""


ABSENT = Given("", False, 0, 0)
"""Stands for an array that a call does not have."""


class How(NamedTuple):
    """The properties of a call that a kernel is compiled for, besides its division."""

    hidden: int
    directions: int
    dtype: torch.dtype
    arrays: tuple[Given, ...]
    bounded: bool
    """Whether there are lengths or resets."""
    sum_columns: tuple[int, ...]
    """For each sum its column of ``sums``, or -1."""
    copy: int
    """The bytes of one copy: a divisor of the addresses of all rows."""
    wide: bool
    """Whether 32 bits cannot count an array's elements, including a tile's rows beyond the batch."""


def text(
    of: Printed,
    which: str,
    divided: Division,
    how: How,
) -> str:
    """The source of the kernel for a pass, ``"forward"`` or ``"backward"``."""
    arrays, named = of.layout(which).arrays, {each.name: each for each in how.arrays}
    given = [named.get(name, ABSENT) for name in arrays]
    ring = [
        (arrays.index(c.array), c.column, bool(c.initial), arrays.index(c.initial) if c.initial else 0, c.at)
        for c in divided.ring
    ]
    numbers = {
        "DIRECTIONS": how.directions,
        "H": how.hidden,
        "UNITS": divided.units,
        "BLOCKS": divided.blocks,
        "ROWS": divided.rows,
        "WARPS": divided.warps,
        "STEPS": divided.steps,
        "COPY": how.copy,
        "RING_AT": divided.ring_at,
        "RING_BYTES": divided.ring_bytes,
        "REDUCED_AT": divided.reduced_at,
        "PARTIAL_AT": divided.partial_at,
        "NUMBERS_AT": divided.numbers_at,
        "BARRIERS_AT": divided.barriers_at,
    }
    lines = [
        f"using Storage = {STORAGE[how.dtype]};",
        f"using Index = {'int64_t' if how.wide else 'int'};",
        f"static constexpr int {', '.join(f'{name} = {value}' for name, value in numbers.items())};",
        f"static constexpr bool BOUNDED = {_spelled(how.bounded)};",
        _array("bool", "given", [each is not ABSENT for each in given]),
        _array("bool", "working", [each.working for each in given]),
        _array("int", "columns", [each.columns for each in given]),
        _array("int", "apart", [each.apart for each in given]),
        _array("ProductForm", "product", divided.products),
        _array("OperandForm", "operand", divided.operands),
        _array("Column", "ring", ring),
        _array("int", "merged_at", divided.merged_at),
        _array("int", "sum_column", how.sum_columns),
    ]
    return TEXT.format(
        struct=of.struct,
        form="\n".join(f"    {line}" for line in lines),
        threads=divided.threads,
        kernel=KERNEL,
        most=MOST_ARRAYS,
        program=f"{STRUCT}::{PASSES[which]}",
    )


def headers() -> dict[str, str]:
    """The headers that a kernel's source includes, by the names that they have there."""
    found = {path.name: path.read_text() for path in sorted(HERE.glob("*.cuh"))}
    return found | {
        "../cpu/pass_description.h": (HERE.parent / "cpu" / "pass_description.h").read_text(),
        "cstdint": '#include "standard.cuh"\n',
    }


def _array(type: str, name: str, items: Iterable[object]) -> str:
    items = [_spelled(item) for item in items]
    return f"static constexpr std::array<{type}, {len(items)}> {name}{{{{{', '.join(items)}}}}};"


def _spelled(value: object) -> str:
    if isinstance(value, tuple):
        return f"{{{', '.join(map(_spelled, value))}}}"
    return str(value).lower() if isinstance(value, bool) else str(value)
