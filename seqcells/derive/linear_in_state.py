"""Whether a cell's new state is linear in the old one, unit by unit; then chunks of a sequence can run in parallel."""

from __future__ import annotations

from ..cells import Cell
from ..cells.activations import where
from ..system.untraced import constant
from .expressions import DerivationError, Expression, reachable
from .trace import equations

INDEPENDENT, LINEAR, OTHERWISE = range(3)


@constant
def why_not_linear(cell: type[Cell]) -> str | None:
    """Why s' = a s + b does not hold for the cell's only state, or None; a and b depend on the input alone."""
    if len(cell.states) > 1:
        return "the cell has several states"
    try:
        made = equations(cell)
    except DerivationError:
        return "its step has no graph"
    degrees: dict[Expression, int] = {made.before[0]: LINEAR}
    for value in reachable(made.new[:1]):
        if value not in degrees:
            degrees[value] = _degree(value, [degrees[each] for each in value.inner])
    reads = any(value.op == "leaf" and value.args[0].startswith("r.") for value in degrees)
    if reads or degrees[made.new[0]] == OTHERWISE:
        return "its new state is not linear in the old one"
    return None


def _degree(value: Expression, inner: list[int]) -> int:
    """How a value depends on the state, given how each of its arguments does."""
    if not any(inner):
        return INDEPENDENT
    if value.gathers or OTHERWISE in inner:
        return OTHERWISE
    if value.op in ("+", "-", "neg"):
        return LINEAR
    if value.op == "*":
        return min(sum(inner), OTHERWISE)
    if value.op == "/":
        return OTHERWISE if inner[1] else LINEAR
    return LINEAR if value.op is where and not inner[0] else OTHERWISE
