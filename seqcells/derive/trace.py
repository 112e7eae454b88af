"""Trace: run a cell's `step` on symbols. The result is a graph of one step, with its boundaries."""

import inspect
import traceback
from collections.abc import Sequence
from types import CodeType
from typing import Any, NamedTuple

from ..cells import Cell
from ..cells.activations import where
from .expressions import DerivationError, Expression, Graph, Product, reachable, wider


class Equations(NamedTuple):
    """A cell's `step` as a graph: the states ``before`` it, and ``new``, its results with the new states first.

    Other leaves are ``x.<gate>``, ``x.<stream>``, ``r.<recurrent gate>``, ``p.<row>``, ``p.<scalar>`` and
    ``bias_<product>.<row block>``.
    """

    graph: Graph
    before: list[Expression]
    new: tuple[Expression, ...]


class Traced(NamedTuple):
    """The graph of one step with its boundaries.

    * ``carried``: the states that the previous step left;
    * ``entering``: the states after a reset, which `step` reads;
    * ``new``: the states that `step` returns;
    * ``leaving``: the states that go on to the next step;
    * ``outputs``: the values that a call returns for all steps;
    * ``valid``: the condition that holds in sequences that have not ended; None if no sequence ends.
    """

    graph: Graph
    carried: list[Expression]
    entering: list[Expression]
    new: list[Expression]
    leaving: list[Expression]
    outputs: dict[str, Expression]
    valid: Expression | None


def trace(cell: type[Cell], reset: bool = False, lengths: bool = False, kept: Sequence[str] | None = None) -> Traced:
    """The graph of one step of a cell. Boundaries are `where`s, and are differentiated like all other expressions.

    Where ``reset`` holds, the state that enters the step is ``reset_state.<state>``. In a sequence that has ended,
    where ``valid`` does not hold, states leave the step as they entered it, and outputs are zero.

    Args:
        reset: whether the call has resets. Default: False
        lengths: whether the call has sequences that end early. Default: False
        kept: names of the cell's kept values that the call asks for. Default: all

    Raises:
        DerivationError: `step` cannot be run on symbols.
    """
    graph = Graph(code_of(cell), cell.heads())
    carried = [graph.leaf(f"carried.{state}", f"B{size}") for state, size in cell.state_sizes.items()]
    entering = carried
    if reset:
        boundary = graph.leaf("reset", "TB")
        reset_states = [graph.leaf(f"reset_state.{state}", f"B{size}") for state, size in cell.state_sizes.items()]
        entering = [where(boundary, f, c) for f, c in zip(reset_states, carried, strict=True)]
    results = dict(zip(cell.results, _run(cell, graph, entering, _products(cell, graph)), strict=True))
    new = [results[state] for state in cell.states]
    outputs = {"output": results[cell.output or cell.states[0]]}
    outputs |= {f"kept.{name}": results[name] for name in (cell.kept if kept is None else kept)}
    leaving, valid = new, None
    if lengths:
        valid = graph.leaf("valid", "TB")
        leaving = [where(valid, n, e) for n, e in zip(new, entering, strict=True)]
        outputs = {name: where(valid, value, 0.0) for name, value in outputs.items()}
    return Traced(graph, carried, entering, new, leaving, outputs, valid)


def equations(cell: type[Cell], biases: bool = True) -> Equations:
    """A cell's `step` without boundaries. The recurrent product's row blocks are leaves, ``r.<recurrent gate>``.

    Args:
        biases: whether the biases of further products are leaves that are added to the products. Otherwise a product
            stands for all of ``p.<product>``, bias included. Default: True

    Raises:
        DerivationError: `step` cannot be run on symbols.
    """
    graph = Graph(code_of(cell), cell.heads())
    before = [graph.leaf(f"s.{state}", f"B{size}") for state, size in cell.state_sizes.items()]
    others = _products(cell, graph, biases)

    def multiply(name: str, operand: Any) -> list[Expression]:
        if name == "hh":
            return [graph.leaf(f"r.{gate}", "BH") for gate in cell.recurrent_gates]
        return others(name, operand)

    return Equations(graph, before, _run(cell, graph, before, multiply))


def fed_back(cell: type[Cell], made: Equations) -> Expression:
    """The operand of the recurrent product, in the graph of a cell's equations."""
    return cell.fed_back(_x(cell, made.graph), made.before)


def code_of(cell: type[Cell]) -> CodeType:
    """The code object of `step` as the cell's author wrote it, without the wrappers of transformed cells."""
    return inspect.unwrap(cell.step).__code__


def _products(cell: type[Cell], graph: Graph, biases: bool = True) -> Any:
    """A function (product's name, operand) → the product's row blocks, with biases added if ``biases``."""

    def multiply(name: str, operand: Any) -> list[Expression]:
        rows, (axis, of), bias, heads = cell.every_product[name]
        if not isinstance(operand, Expression) or not operand.unit_axis:
            raise DerivationError(f"the product {name} of what is no vector of units")
        # All row blocks are made before any value that uses one, so that they can be differentiated together.
        ops = [Product(f"weight_{name}", (block,), heads, axis=axis, of=of) for block in range(len(rows))]
        products = [graph.make(op, operand) for op in ops]
        if not (bias and biases):
            return products
        leaves = [graph.leaf(f"bias_{name}.{row}", axis) for row in rows]
        return [product + leaf for product, leaf in zip(products, leaves, strict=True)]

    return multiply


def _x(cell: type[Cell], graph: Graph) -> list[Expression]:
    """The leaves for the argument ``x`` of `step`: the input's gates, then the streams."""
    gates = [graph.leaf(f"x.{gate}", "TBH") for gate in cell.gates]
    return gates + [graph.leaf(f"x.{name}", axes) for name, axes in cell.streams.items()]


def _run(cell: type[Cell], graph: Graph, before: Sequence[Expression], multiply: Any) -> tuple[Expression, ...]:
    """The results of `step` on symbols, checked; a `DerivationError` names the line where `step` fails."""
    code = code_of(cell)

    def error(line: int, words: object) -> DerivationError:
        return DerivationError(f"{code.co_filename}:{line}: step of {cell.__name__}: {words}")

    try:
        x = _x(cell, graph)
        r = multiply("hh", cell.fed_back(x, before)) if cell.recurrent_gates else ()
        own = [graph.leaf(f"p.{row}", size) for row, size in cell.row_sizes.items()]
        own += [graph.leaf(f"p.{name}", "") for name in cell.scalars]
        new = cell.advance(x, r, before, cell.given(own, multiply))
    except Exception as reason:
        lines = [line for frame, line in traceback.walk_tb(reason.__traceback__) if frame.f_code is code]
        raise error(lines[0] if lines else code.co_firstlineno, reason) from reason
    last = max(line for *_, line in code.co_lines() if line)
    states = len(cell.states)
    if len(new) != len(cell.results):
        if len(new) < states or states == len(cell.results):
            raise error(last, f"returns {len(new)} of its {states} states ({', '.join(cell.states)})")
        raise error(last, f"returns {len(new)} of its results ({', '.join(cell.results)})")
    for name, value in zip(cell.results, new, strict=True):
        kind = "state" if name in cell.states else "result"
        if not isinstance(value, Expression) or value.op == ">" or (kind == "state" and not value.unit_axis):
            raise error(last, f"returns no number for its {kind} {name}")
    for (name, size), value in zip(cell.state_sizes.items(), new, strict=False):
        if "B" not in value.axes:
            raise error(last, f"its state {name} is one of each sequence, its next value the same for all")
        if value.unit_axis != size and not wider(size, value.unit_axis):
            raise error(last, f"its state {name} is of size {size}, its next value of size {value.unit_axis}")
    if cell.projection and before[0] in reachable([*new]) and not _only_multiplied(before[0], new):
        raise error(last, f"reads s.{cell.states[0]}, which has another size under the projection that it allows")
    return new


def _only_multiplied(state: Expression, new: Sequence[Expression]) -> bool:
    """Whether only products read a state."""
    return all(isinstance(v.op, Product) for v in reachable(new) if state in v.inner) and state not in new
