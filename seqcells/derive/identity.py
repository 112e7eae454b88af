"""What a cell computes, as a short text: the same for the same equations, however they are written or printed."""

import hashlib

from ..cells import Cell
from ..cells.activations import Activation
from .expressions import Expression, reachable
from .trace import equations


def identity(cell: type[Cell]) -> str:
    """A hash of a cell's equations and of the names that its tensors go by; DerivationError where it has no graph."""
    states = equations(cell).new
    values = reachable(states)
    places = {value: place for place, value in enumerate(values)}

    def spelled(value: Expression) -> str:
        name = value.op.name if isinstance(value.op, Activation) else value.op
        return f"{name} {' '.join(f'#{places[a]}' if isinstance(a, Expression) else repr(a) for a in value.args)}"

    names = cell.gates, cell.recurrent_gates, cell.states, sorted(cell.parameters.items()), cell.projection
    names = *names, sorted(cell.rows_of_products().items()), cell.scalars
    lines = [repr(names), *map(spelled, values), *(f"= #{places[state]}" for state in states)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
