"""Third: what forward saves, what backward computes again, and both as named assignments in order."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ..cells import Cell
from ..cells.activations import ACTIVATIONS, Activation
from .differentiate import gradients
from .trace import Expression, Graph, reachable, trace

# What the printed functions call their own arguments and results.
RESERVED = {*ACTIVATIONS, "x", "r", "s", "p", "n", "d", "saved", "dx", "dr", "ds", "dp", "tl", "triton", "T", "V"}


class Block(NamedTuple):
    """The body of a function: leaves it reads, assignments in order, and its results."""

    leaves: list[Expression]
    assigned: list[Expression]
    names: Mapping[Expression, str]
    results: dict[str, tuple[Expression | None, ...]]
    """Of each record that is returned; None is zero."""

    @property
    def roots(self) -> list[Expression]:
        """The results that there are."""
        return [value for values in self.results.values() for value in values if value is not None]

    @property
    def operations(self) -> int:
        """Operations of arithmetic and activations, each counted once."""
        return sum(bool(expression.inner) for expression in reachable(self.roots))


class Plan(NamedTuple):
    """A cell's two functions, and what an engine has to know of them."""

    cell: type[Cell]
    forward: Block
    backward: Block
    saved: tuple[str, ...]
    """The names of what forward saves."""
    shared: tuple[int, ...]
    """For each recurrent gate the gate whose gradient dx equals this dr, as it is where `step` has their sum; or -1."""
    previous: tuple[bool, ...]
    """Which of the states before the step backward reads."""
    next: tuple[bool, ...]
    """Which of the states after the step backward reads."""


def plan(cell: type[Cell]) -> Plan:
    """Derive a cell's kernels.

    Raises:
        DerivationError: its `step` cannot be derived.
    """
    graph, states = trace(cell)
    total = gradients(states, [graph.leaf("d", state) for state in cell.states])
    fields = {"x": cell.gates, "r": cell.recurrent_gates, "s": cell.states, "p": cell.P._fields}
    wanted = {k: [total.get(graph.leaf(k, field)) for field in names] for k, names in fields.items()}
    roots = [value for values in wanted.values() for value in values if value is not None]

    # The first state of a projected cell is kept only after its projection.
    kept = cell.states[1:] if cell.projection else cell.states
    stored = {value: graph.leaf("n", state) for state, value in zip(cell.states, states, strict=True) if state in kept}
    saved = _to_save(roots, set(reachable(states)), stored)
    named = _named(graph, cell, states)
    forward = _block({"states": states, "saved": tuple(saved)}, named)

    # Backward in terms of what it is given.
    lowered = stored | {value: graph.leaf("saved", forward.names[value]) for value in saved}
    for value in reachable(roots):
        if value not in lowered:
            lowered[value] = graph.make(value.op, *(lowered[arg] for arg in value.args)) if value.inner else value
    results = {f"d{k}": tuple(None if v is None else lowered[v] for v in values) for k, values in wanted.items()}
    names = {lowered[value]: name for value, name in named.items() if value in lowered}
    names |= {lowered[d]: f"d_{named[value]}" for value, d in total.items() if value in named and d in lowered}
    for k, values in results.items():
        for field, value in zip(fields[k[1]], values, strict=True):
            if value is not None:
                names.setdefault(value, f"{k}_{field}")
    backward = _block(results, names)

    def reads(record: str) -> tuple[bool, ...]:
        return tuple(graph.leaf(record, state) in backward.leaves for state in cell.states)

    shared = tuple(next((i for i, v in enumerate(results["dx"]) if v is d), -1) for d in results["dr"])
    return Plan(cell, forward, backward, tuple(forward.names[v] for v in saved), shared, reads("s"), reads("n"))


def _to_save(
    roots: Sequence[Expression], forward: set[Expression], stored: Mapping[Expression, Expression]
) -> list[Expression]:
    """The values of forward that backward mentions and that do not follow from the states, in order."""

    def follows(value: Expression, saved: Sequence[Expression] = ()) -> bool:
        if value in stored or value in saved or value.op in ("s", "p", "constant"):
            return True
        return bool(value.inner) and all(follows(arg, saved) for arg in value.inner)

    mentioned: set[Expression] = set()
    todo, seen = list(roots), set(roots)
    while todo:
        value = todo.pop()
        if value in forward and value.op != ">" and not follows(value):
            mentioned.add(value)
        elif value not in stored:
            todo.extend(arg for arg in value.inner if arg not in seen)
            seen.update(value.inner)
    saved: list[Expression] = []
    for value in sorted(mentioned, key=lambda value: value.index):
        if not follows(value, saved):
            saved.append(value)
    return saved


def _named(graph: Graph, cell: type[Cell], states: Sequence[Expression]) -> dict[Expression, str]:
    """The source's names, and the states' for those it only returns."""
    names = graph.names()
    for state, value in zip(cell.states, states, strict=True):
        if value.inner:
            names.setdefault(value, state)
    return names


def _name(value: Expression, names: Mapping[Expression, str]) -> str:
    """A name, made up from its parts for a value that was given none."""
    if not value.inner:
        return value.args[0] if value.op == "saved" else f"{value.op}_{value.args[0]}"
    if value in names:
        return names[value]
    last = value.inner[-1]
    if isinstance(value.op, Activation) and len(value.inner) == 1 and (last in names or not last.inner):
        return f"{value.op.name}_{names.get(last) or last.args[0]}"
    if value.op == "-" and value.args[0].is_(1) and (last in names or not last.inner):
        return f"one_minus_{_name(last, names)}"
    return "t1"


def _block(results: dict[str, tuple[Expression | None, ...]], names: Mapping[Expression, str]) -> Block:
    """Assign what has a name, is a result, or is used more than once; the rest is written where it is used."""
    roots = [value for values in results.values() for value in values if value is not None]
    values = reachable(roots)
    uses: dict[Expression, int] = dict.fromkeys(values, 0)
    for value in values:
        for arg in value.inner:
            uses[arg] += 1
    leaves = [value for value in values if not value.inner and value.op != "constant"]
    assigned = [v for v in values if v.inner and (v in names or uses[v] > 1 or v in roots)]
    taken: dict[str, Expression | None] = dict.fromkeys(RESERVED)
    for value in leaves + assigned:
        name = _name(value, names)
        while name in taken:
            name = f"t{int(name[1:]) + 1}" if name[1:].isdigit() else name + "_"
        taken[name] = value
    return Block(leaves, assigned, {value: name for name, value in taken.items() if value is not None}, results)
