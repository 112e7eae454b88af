"""Cells that the extension was built with: their kernels, and the fields of ``Problem`` in problem.h."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, cached_property
from typing import TYPE_CHECKING

from ...cells import Cell
from . import _engine, library
from .gradients import Columns, Run, runs

if TYPE_CHECKING:
    from .call import LayerCall

MAX_STATES = 4
_SIZES = ("steps", "batch", "hidden", "projected", "reverse", "threads", "halves", "gates_width", "output_width")
_GIVEN = (
    *("gates_x", "input", "weight_ih", "bias_ih", "features", "initial", "weight_hh", "bias_hh", "weight_hr", "unit"),
    *("lengths", "reset", "fresh", "packed", "output", "final", "saved", "after", "previous"),
)
_GRADIENTS = (
    *("grad_output", "grad_final", "grad_gates_x", "grad_products", "grad_projected", "grad_initial", "grad_fresh"),
    *("grad_unit", "grad_bias_ih", "grad_bias_hh"),
)
_FIELDS = [*_SIZES, *_GIVEN, *_GRADIENTS]
"""The fields of ``Problem``, in order."""
_OF_STATES = {"initial", "fresh", "final", "after", "grad_final", "grad_initial", "grad_fresh"}
"""Those that have an address for each state, named ``initial.h``."""


@cache
def _places(cell: type[Cell]) -> tuple[dict[str, int], int]:
    """Where each field is, by name, and how many there are."""
    own, places, count = next(iter(cell.own_names()), None), {}, 0
    for name in _FIELDS:
        if name in _OF_STATES:
            places |= {f"{name}.{state}": count + k for k, state in enumerate(cell.states)}
            count += MAX_STATES
            continue
        if name.endswith("unit") and own:
            places[name.replace("unit", own)] = count
        places[name] = count
        count += 1
    return places, count


class Built:
    """A cell's row in the tables, for a precision and the instruction set in use."""

    kind = "forward", "backward"
    gates_inside = True
    """Whether the input may be projected inside the loop, which then never has all gates as a whole."""
    writes_gradients_once = True
    """Whether each weight's gradient is written as a whole, without adding to some of it."""

    def __init__(
        self, cell: type[Cell], precision: str, row: tuple[int, int, tuple[int, ...], tuple[int, ...]]
    ) -> None:
        handle, self._saves, self._shared, self._path = row
        self.handles = handle, handle
        self.cell = cell
        (places, self.count) = _places(cell)
        self.places = places, places

    def keeps(self, hidden: int, projected: bool) -> dict[str, int]:
        """The arrays over all steps that forward leaves for backward, besides the output: how wide they are."""
        first, *others = self.cell.states
        paths = [first] * projected + [state for state, there in zip(others, self._path[1:], strict=True) if there]
        return {"saved": self._saves * hidden} | {f"after.{state}": hidden for state in paths}

    def makes(self, hidden: int, projected: int | None) -> dict[str, int]:
        """Those that backward leaves for the weights' gradients, besides the gates'. ``projected``: P or None."""
        found = {"grad_products": self._shared.count(-1) * hidden}
        return found if projected is None else found | {"grad_projected": projected}

    @cached_property
    def runs(self) -> list[Run]:
        """The weights' gradients."""
        own, terms = 0, []
        for gate, shared in enumerate(self._shared):
            at = Columns("grad_products", own) if shared < 0 else Columns("grad_gates_x", shared)
            own += shared < 0
            terms.append(Run("weight_hh", gate, 1, 1, at, Columns("previous", 0)))
        projection = Run("weight_hr", 0, 1, 1, Columns("grad_projected", 0), Columns(f"after.{self.cell.states[0]}", 0))
        return [*runs(terms), projection]

    def sums(self, name: str) -> bool:
        """Whether backward sums up the gradient of a parameter by itself, and must have room for it."""
        return name not in ("weight_hh", "weight_hr")

    def fields(self, call: LayerCall, d: int, widths: Mapping[str, int], backward: bool) -> list[int]:
        """Those of a direction, without addresses."""
        sizes = [call.steps, call.batch, call.hidden, call.projected, *call.circumstances(d)]
        return [*sizes, widths["gates_x"], widths["output"], *[0] * (self.count - len(_SIZES))]

    def run(self, fields: Sequence[int], backward: bool) -> None:
        """All directions' fields, with their addresses."""
        _engine.run(self.handles[0], backward, *fields)

    def pack(self, fields: Sequence[int], memory: int) -> int:
        """Forward's weights packed into memory, if there is any, of one direction; returns how many bytes they take."""
        return _engine.pack(self.handles[0], memory, *fields)


@cache
def _built(cell: type[Cell], precision: str, target: str) -> Built | None:
    row = _engine.find(target, precision, cell.name)
    return None if row is None else Built(cell, precision, row)


def built(cell: type[Cell], precision: str = "float32") -> Built | None:
    """The kernels in use for a cell, or None where the tables lack it."""
    return _built(cell, precision, library.target)
