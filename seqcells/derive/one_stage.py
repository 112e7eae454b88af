"""Cells of one stage: the saved values, the recomputed values, and both passes as assignments in order."""

from collections.abc import Collection, Mapping
from typing import NamedTuple

from ..cells import Cell
from ..cells.activations import ACTIVATIONS, Activation
from .differentiate import gradients
from .expressions import DerivationError, Expression, Graph, reachable
from .trace import equations

# Names that the printed functions use for their own arguments and results.
RESERVED = {*ACTIVATIONS, "x", "r", "s", "p", "n", "d", "saved", "dx", "dr", "ds", "dp", "zero", "tl", "T", "V"}


class Block(NamedTuple):
    """The body of a function: its values in order, the values assigned to a name, all names, and the results by record.

    A result of None is zero.
    """

    values: list[Expression]
    assigned: list[Expression]
    names: dict[Expression, str]
    results: dict[str, tuple[Expression | None, ...]]


class OneStage(NamedTuple):
    """A cell's forward and backward function, the fields of their records, and facts for the printed table.

    * ``same_dx``: for each recurrent gate, the input's gate with the same gradient, or -1;
    * ``previous``, ``next``: which states before and after the step the backward function reads.
    """

    cell: type[Cell]
    fields: dict[str, tuple[str, ...]]
    forward: Block
    backward: Block
    same_dx: tuple[int, ...]
    previous: tuple[bool, ...]
    next: tuple[bool, ...]


def one_stage(cell: type[Cell]) -> OneStage:
    """Derive the forward and backward functions of a cell of one stage.

    Raises:
        DerivationError: the cell's `step` cannot be derived, or has a further product or a reduction.
    """
    graph, _, states = equations(cell)
    if any(value.gathers for value in reachable(states)):
        raise DerivationError(f"step of {cell.__name__} gathers over units more than once: its kernels are not printed")
    new = dict(zip(states, cell.states, strict=True))
    total = gradients(states, [graph.leaf(f"d.{state}", "BH") for state in cell.states]).total
    fields = {"x": cell.gates, "r": cell.recurrent_gates, "s": cell.states, "p": cell.P._fields}
    wanted = {f"d{k}": tuple(total.get(_leaf(graph, k, f)) for f in names) for k, names in fields.items()}

    # The first state of a projected cell is available only after its projection, so backward cannot read it.
    given = {v: _leaf(graph, "n", state) for v, state in new.items() if state in cell.states[cell.projection :]}
    saved = _to_save(_present(wanted), reachable(states), given)
    called = {value: state for value, state in new.items() if value.inner} | graph.names()
    forward = _block({"n": states, "saved": tuple(saved)}, called)

    # Rewrites the gradients in terms of the leaves that the backward function is given.
    given |= {value: _leaf(graph, "saved", forward.names[value]) for value in saved}
    for value in reachable(_present(wanted)):
        if value not in given:
            given[value] = graph.make(value.op, *(given[arg] for arg in value.args)) if value.inner else value
    results = {
        k: tuple(value if value is None else given.get(value) for value in values) for k, values in wanted.items()
    }
    names = {given[d]: f"d_{called[value]}" for value, d in total.items() if value in called and d in given}
    names |= {given[value]: name for value, name in called.items() if value in given}
    for k, values in results.items():
        for field, value in zip(fields[k[1]], values, strict=True):
            if value is not None:
                names.setdefault(value, f"{k}_{field}")
    backward = _block(results, names)

    fields |= {"saved": tuple(forward.names[value] for value in saved), "n": cell.states, "d": cell.states}
    same_dx = tuple(next((i for i, dx in enumerate(results["dx"]) if dx is dr is not None), -1) for dr in results["dr"])
    reads = (tuple(_leaf(graph, k, state) in backward.values for state in cell.states) for k in ("s", "n"))
    return OneStage(cell, fields, forward, backward, same_dx, *reads)


def _leaf(graph: Graph, record: str, field: str) -> Expression:
    """The leaf for a field of a record, which a printed function takes as an argument."""
    axes = {"x": "TBH", "p": "H"}.get(record, "BH")
    return graph.leaf(f"{record}.{field}", axes)


def _record(value: Expression) -> str:
    """The record that a leaf is a field of; "" for a value that is no leaf."""
    return value.args[0].partition(".")[0] if value.op == "leaf" else ""


def _present(results: dict[str, tuple]) -> list[Expression]:
    return [value for values in results.values() for value in values if value is not None]


def _to_save(roots: list[Expression], forward: list[Expression], given: Mapping) -> list[Expression]:
    """The forward values that the backward pass uses and that cannot be recomputed from the states, in order."""

    def follow(mentioned: Collection[Expression]) -> tuple[set[Expression], list[Expression]]:
        known, saved = set(), []
        for value in forward:
            follows = value.inner and known.issuperset(value.inner)
            if value in given or value.op == "constant" or _record(value) in ("s", "p") or follows:
                known.add(value)
            elif value in mentioned:
                known.add(value)
                saved.append(value)
        return known, saved

    free, todo, seen, mentioned = follow(())[0], [*roots], set(), set()
    while todo:
        value = todo.pop()
        if value in forward and value not in free and value.op != ">":
            mentioned.add(value)
        elif value not in seen and value not in given:
            seen.add(value)
            todo += value.inner
    return follow(mentioned)[1]


def _block(results: dict[str, tuple], names: Mapping[Expression, str]) -> Block:
    """The body of a function. A value is assigned if it has a name, or is used more than once (a result is a use).

    All other values are printed inside the expression that uses them.
    """
    values = reachable(_present(results))
    used = _present(results) + [arg for value in values for arg in value.inner]
    assigned = [value for value in values if value.inner and (value in names or used.count(value) > 1)]
    taken: dict[str, Expression] = {}
    for value in [value for value in values if not value.inner and value.op != "constant"] + assigned:
        name = names.get(value) or _made_up(value, names)
        while name in taken or name in RESERVED:
            name = f"{name[:-1]}{int(name[-1]) + 1}" if name[-1].isdigit() else f"{name}_"
        taken[name] = value
    return Block(values, assigned, {value: name for name, value in taken.items()}, results)


def _made_up(value: Expression, names: Mapping[Expression, str]) -> str:
    """A name for a value without a name in the source, from the names of its parts."""
    if not value.inner:
        record, _, field = value.args[0].partition(".")
        return field if record == "saved" else f"{record}_{field}"
    named = names.get(value.inner[-1])
    if value.op == "-" and value.args[0].args == (1,) and named:
        return f"one_minus_{named}"
    return f"{value.op.name}_{named}" if isinstance(value.op, Activation) and named else "t1"
