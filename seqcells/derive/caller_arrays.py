"""The columns of the caller's arrays that hold the leaves and results of a cell's programs."""

from collections.abc import Sequence
from typing import NamedTuple

from ..cells import Cell
from .derivation import Derivation
from .expressions import Expression


class Slot(NamedTuple):
    """The place of a value: ``where`` and ``axes`` as in kernels/cpu/pass_description.h, and a column of an array.

    A column has one element for each unit, or one number.
    """

    where: str
    axes: str
    array: str = ""
    column: int = 0
    working: bool = False
    """Whether the array has the dtype of the computation, instead of the dtype of the caller's tensors."""


def of_size(array: str, letter: str) -> str:
    """The name of an array that exists once for each size of units: the letter of a size other than H is appended."""
    return array if letter == "H" else f"{array}.{letter}"


def general(axes: str) -> str:
    """The axes with H in place of the letter of any other size."""
    return axes if not axes or axes[-1] in "TB" else f"{axes[:-1]}H"


def columns_of(cell: type[Cell], values: Sequence[Expression], derived: Derivation) -> dict[str, Slot]:
    """Where each leaf and each result of the forward pass is stored."""
    found = {f"x.{gate}": Slot("GATE", "TBH", "gates_x", k) for k, gate in enumerate(cell.gates)}
    found |= {f"x.{name}": Slot("GIVEN", general(axes), f"x.{name}") for name, axes in cell.streams.items()}
    for name, value in derived.forward.outputs.items():
        if name.startswith("kept."):
            found[name] = Slot("GIVEN", general(value.axes), name)
            found[f"d.{name}"] = Slot("GIVEN", general(value.axes), f"grad_{name}")
    for name, rows in cell.parameters.items():
        found |= {f"p.{row}": Slot("GIVEN", "H", f"weight_{name}", k) for k, row in enumerate(rows)}
    found |= {f"p.{name}": Slot("GIVEN", "", f"weight_{name}") for name in cell.scalars}
    for name, rows in ({"hh": cell.recurrent_gates} | cell.rows_of_products()).items():
        found |= {f"bias_{name}.{row}": Slot("GIVEN", "H", f"bias_{name}", k) for k, row in enumerate(rows)}
    counts: dict[str, int] = {}
    for name, value in derived.saved.items():
        array = of_size("saved", value.unit_axis) if value.unit_axis else "numbers"
        found[f"saved.{name}"] = Slot("GIVEN", general(f"T{value.axes}"), array, counts.get(array, 0), True)
        counts[array] = counts.get(array, 0) + 1
    axes = general(f"TB{derived.forward.outputs['output'].value.unit_axis}")
    output = Slot("GIVEN", axes, "output")
    for k, state in enumerate(cell.states):
        there = not k and cell.returns_first
        found[f"reset_state.{state}"] = Slot("GIVEN", "BH", f"reset_state.{state}")
        found[f"after.{state}"] = output if there else Slot("GIVEN", "TBH", f"after.{state}", working=True)
        before = Slot("BEFORE", "TBH", f"after.{state}", working=True)
        found[f"before.{state}"] = Slot("GIVEN", "TBH", "previous") if there else before
    found |= {"output": output, "d.output": Slot("GIVEN", axes, "grad_output")}
    counted = [v.args[0] for v in values if v.op == "leaf" and v.args[0].startswith("units.")]
    return found | {name: Slot("COUNT", "", name.removeprefix("units.")) for name in counted}
