"""The values of a cell's step by name, which a call may ask for at all time steps (``keep=``) besides the output."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from ..cells import Cell
from ..cells.activations import Activation
from ..cells.units import Reduction, count
from .expressions import DerivationError, Expression, Product, reachable
from .interpret import ARITHMETIC
from .trace import equations


@cache
def named_values(cell: type[Cell]) -> Mapping[str, Expression]:
    """The values of a step by name. Each kind takes only names that the kinds before it left free:

    * the cell's results: its states after the step, its output, and the values that it declares as kept;
    * the local variables of `step` when it returns;
    * gates: the first activation of the gate's part of the input, if there is exactly one. For an LSTM, ``f`` is
      sigmoid(W_if x + b_if + W_hf h + b_hf), as in torch.nn's documentation.

    Raises:
        DerivationError: `step` cannot be run on symbols.
    """
    graph, _, new = equations(cell, biases=False)
    found = dict(zip(cell.results, new, strict=True))
    called = (graph.frame.f_locals if graph.frame else {}).items()
    found = {name: v for name, v in called if isinstance(v, Expression) and v.op != ">"} | found
    gates = {gate: _activated(graph.leaf(f"x.{gate}", "TBH"), [*graph.made.values()]) for gate in cell.gates}
    return {name: v for name, v in gates.items() if v is not None} | found


def _activated(part: Expression, values: Sequence[Expression]) -> Expression | None:
    """The activation that is applied to a gate's part of the input, if there is exactly one.

    Before the activation the part may be negated, added to other values, and multiplied or divided. The factor must not
    vary along both sequences and units.
    """
    todo, found = [part], set()
    while todo:
        v = todo.pop()
        for user in (value for value in values if v in value.inner):
            scales = all(len(other.axes) < 2 for other in user.inner if other is not v)
            if user.op in ("+", "-", "neg") or (user.op in ("*", "/") and scales):
                todo.append(user)
            elif isinstance(user.op, Activation) and not isinstance(user.op, Reduction) and len(user.inner) == 1:
                found.add(user)
    return found.pop() if len(found) == 1 else None


def sizes_of(cell: type[Cell], names: Sequence[str]) -> dict[str, str]:
    """The letters of the sizes of the values of these names; "" for a value that is one number of each sequence.

    Raises:
        ValueError: the cell has no such value.
    """
    try:
        values = {name: v.unit_axis for name, v in named_values(cell).items()} | cell.state_sizes
    except DerivationError as error:
        raise ValueError(f"only states of the {cell.name} cell can be kept: {error}") from error
    for name in names:
        if name not in values:
            raise ValueError(f"the {cell.name} cell has no value {name!r} to keep: it has {', '.join(sorted(values))}")
    return {name: values[name] for name in names}


def operands(cell: type[Cell]) -> Iterator[tuple[str, set[str]]]:
    """The name of each product besides the recurrent one, and the names of the leaves that its operand is made of.

    A leaf that reaches the operand only through another product or a reduction is left out.

    Raises:
        DerivationError: `step` cannot be run on symbols.
    """
    for v in reachable(equations(cell, biases=False).new):
        if isinstance(v.op, Product):
            todo, met = [*v.inner], set()
            while todo:
                value = todo.pop()
                met.add(value)
                todo += () if value.gathers else [arg for arg in value.inner if arg not in met]
            yield v.op.weight.removeprefix("weight_"), {value.args[0] for value in met if value.op == "leaf"}


@cache
def keeping(cell: type[Cell], names: tuple[str, ...]) -> type[Cell]:
    """A cell with the same equations that also returns the values of these names.

    Raises:
        ValueError: the cell has no such value.
    """
    sizes_of(cell, names)
    if {*names} <= {*cell.results}:
        return cell
    results = tuple(dict.fromkeys([*cell.states, cell.output or cell.states[0], *names]))
    values = named_values(cell)
    roots = [values[name] for name in results]

    def step(x: Any, r: Any, s: Any, p: Any) -> tuple[Any, ...]:
        found = _evaluated(cell, roots, x, r, s, p)
        return tuple(found[root] for root in roots)

    own = {"name": cell.name, "base": cell.base, "words": cell.words, "__module__": cell.__module__}
    return type(cell.__name__, (cell,), {**own, "kept": names, "step": staticmethod(step)})


def _evaluated(cell: type[Cell], roots: Sequence[Expression], x: Any, r: Any, s: Any, p: Any) -> dict[Expression, Any]:
    """The roots and all values that they depend on, computed from the arguments of a step.

    The arguments are tensors, or symbols of another graph.
    """
    products = dict(zip(cell.rows_of_products(), _flat(p[len(p) - len(cell.products) :]), strict=True))
    leaves = {f"x.{name}": v for name, v in zip(x._fields, x, strict=True)}
    leaves |= {f"r.{name}": v for name, v in zip(r._fields, r, strict=True)}
    leaves |= {f"s.{name}": v for name, v in zip(cell.states, _flat(s), strict=True)}
    leaves |= {f"p.{name}": v for name, v in zip(p._fields, p, strict=True)}
    found: dict[Expression, Any] = {}
    made: dict[tuple[str, Expression], Sequence[Any]] = {}

    def value(v: Expression) -> Any:
        if v.op == "constant":
            return v.args[0]
        if v.op == "leaf":
            name, _ = v.args
            if not name.startswith("units."):
                return leaves[name]
            letter = name.removeprefix("units.")
            return count(next(found[a] for a in found if a.unit_axis == letter))
        arguments = [found[arg] for arg in v.args]
        if isinstance(v.op, Product):
            name, (block,) = v.op.weight.removeprefix("weight_"), v.op.blocks
            key = name, v.args[0]
            if key not in made:
                rows = products[name](*arguments)
                made[key] = rows if isinstance(rows, tuple) else (rows,)
            return made[key][block]
        if isinstance(v.op, Reduction):
            return v.op(*arguments, heads=v.op.heads)
        return v.op(*arguments) if isinstance(v.op, Activation) else ARITHMETIC[v.op](*arguments)

    for v in reachable(roots):
        found[v] = value(v)
    return found


def _flat(values: Sequence[Any]) -> Iterator[Any]:
    """The values of a record, with nested tuples flattened by one level."""
    for value in values:
        yield from value if isinstance(value, tuple) else (value,)
