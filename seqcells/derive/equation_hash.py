"""A short hash of a cell's equations: it depends on what is computed, not on how the source is written or printed."""

import hashlib

from torch import fx

from ..cells import Cell
from ..cells.activations import Activation
from ..cells.units import Reduction
from .expressions import DerivationError, Expression, reachable
from .trace import equations, fed_back


def identity(cell: type[Cell]) -> str:
    """A hash of a cell's equations and of the names of its tensors, 16 hexadecimal digits.

    Raises:
        DerivationError: the cell's `step` or `weights` has no graph.
    """
    made = equations(cell)
    states, operand = made.new, fed_back(cell, made)
    operands = [] if operand is made.before[0] else [operand]
    values = reachable([*states, *operands])
    places = {value: place for place, value in enumerate(values)}

    def spelled(value: Expression) -> str:
        name = value.op.name if isinstance(value.op, Activation) else value.op
        name = f"{name} by {value.op.heads}" if isinstance(value.op, Reduction) else name
        return f"{name} {' '.join(f'#{places[a]}' if isinstance(a, Expression) else repr(a) for a in value.args)}"

    names = cell.gates, cell.recurrent_gates, cell.states, sorted(cell.parameters.items()), cell.projection
    names = *names, sorted(cell.every_product.items()), [*cell.scalars], sorted(cell.sizes.items())
    lines = [repr(names), *map(spelled, values), *(f"= #{places[state]}" for state in states)]
    lines += [*(f"hh #{places[operand]}" for operand in operands), _made(cell)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _made(cell: type[Cell]) -> str:
    """The graph of a cell's `weights` as text; "" for a cell that does not override `weights`."""
    if cell.weights is Cell.weights:
        return ""
    try:
        return str(fx.Tracer().trace(cell.weights))
    except Exception as reason:
        raise DerivationError(f"weights of {cell.__name__} has no graph: {reason}") from reason
