"""First: run a cell's `step` on symbols. What comes back is its equations as a graph of expressions."""

import sys
import traceback
from collections.abc import Iterable
from types import CodeType
from typing import Any

from ..cells import Cell
from ..cells.activations import Activation


class DerivationError(ValueError):
    """A cell's `step` cannot be turned into kernels; the message names the line."""


def _binary(op: str) -> tuple[Any, Any]:
    return lambda a, b: a.graph.make(op, a, b), lambda a, b: a.graph.make(op, b, a)


class Expression:
    """A value: an operation on others, a constant, or a leaf such as ``x.i``. Equal ones are one object.

    ``op`` is one of ``+ - * / neg >``, an `Activation`, ``"constant"``, or a leaf's record (``"x"``, …);
    ``args`` are expressions, the constant's number, or the leaf's field; ``index`` counts as they are made.
    """

    def __init__(self, graph: "Graph", op: Any, args: tuple) -> None:
        self.graph, self.op, self.args, self.index = graph, op, args, len(graph.made)

    @property
    def inner(self) -> tuple["Expression", ...]:
        """The expressions this one is made of; none for constants and leaves."""
        return tuple(arg for arg in self.args if isinstance(arg, Expression))

    def apply(self, activation: Activation, *values: Any) -> "Expression":
        return self.graph.make(activation, *values)

    __add__, __radd__ = _binary("+")
    __sub__, __rsub__ = _binary("-")
    __mul__, __rmul__ = _binary("*")
    __truediv__, __rtruediv__ = _binary("/")
    __gt__, __lt__ = _binary(">")

    def __neg__(self) -> "Expression":
        return self.graph.make("neg", self)

    def __bool__(self) -> bool:
        raise DerivationError("a step cannot branch on values; use where(condition, a, b)")


class Graph:
    """Makes expressions, each once, and remembers the names that the code of `step` gave them."""

    def __init__(self, code: CodeType) -> None:
        self.code, self.frame = code, None
        self.made: dict[tuple, Expression] = {}

    def make(self, op: Any, *args: Any) -> Expression:
        """``op`` of ``args``, numbers among them allowed."""
        if self.frame is None:
            self.frame = sys._getframe(1)
            while self.frame is not None and self.frame.f_code is not self.code:
                self.frame = self.frame.f_back
        values = tuple(arg if isinstance(arg, Expression) else self.constant(arg) for arg in args)
        simpler = _simpler(op, *values)
        places = [value.index for value in values]
        key = (op, *(sorted(places) if op in ("+", "*") else places))
        return self._once(key, op, values) if simpler is None else simpler

    def leaf(self, record: str, field: str) -> Expression:
        return self._once((record, field), record, (field,))

    def constant(self, value: Any) -> Expression:
        return self._once(("constant", float(value)), "constant", (float(value),))

    def _once(self, key: tuple, op: Any, args: tuple) -> Expression:
        if key not in self.made:
            self.made[key] = Expression(self, op, args)
        return self.made[key]

    def names(self) -> dict[Expression, str]:
        """What `step` called its values; the first name of those that have several."""
        values = reversed((self.frame.f_locals if self.frame else {}).items())
        return {value: name for name, value in values if isinstance(value, Expression) and value.inner}


def _simpler(op: Any, a: Expression, b: Expression | None = None, *_: Expression) -> Expression | None:
    """The same value in fewer operations, where floating point agrees exactly: signs move, factors of 1 go."""
    if op == "neg" and a.op in ("neg", "-"):
        return a.args[0] if a.op == "neg" else a.args[1] - a.args[0]
    if op in ("*", "/") and "neg" in (a.op, b.op):
        return -a.graph.make(op, a.args[0], b) if a.op == "neg" else -a.graph.make(op, a, b.args[0])
    if op in ("+", "-") and b.op == "neg":
        return a.graph.make("-" if op == "+" else "+", a, b.args[0])
    if op in ("*", "/") and b.args == (1,):
        return a
    return b if op == "*" and a.args == (1,) else None


def trace(cell: type[Cell]) -> tuple[Graph, tuple[Expression, ...]]:
    """The graph of a cell's equations, and its new states within it; DerivationError where there is none."""
    code = cell.step.__code__
    graph = Graph(code)
    records = {"x": cell.X, "r": cell.R, "s": cell.S, "p": cell.P}

    def error(line: int, words: object) -> DerivationError:
        return DerivationError(f"{code.co_filename}:{line}: step of {cell.__name__}: {words}")

    try:
        new = cell.advance(*([graph.leaf(k, field) for field in record._fields] for k, record in records.items()))
    except Exception as reason:
        lines = [line for frame, line in traceback.walk_tb(reason.__traceback__) if frame.f_code is code]
        raise error(lines[0] if lines else code.co_firstlineno, reason) from reason
    last = max(line for *_, line in code.co_lines() if line)
    if len(new) != len(cell.states):
        raise error(last, f"returns {len(new)} of its {len(cell.states)} states ({', '.join(cell.states)})")
    for state, value in zip(cell.states, new, strict=True):
        if not isinstance(value, Expression) or value.op == ">":
            raise error(last, f"returns no number for its state {state}")
    if cell.projection and graph.leaf("s", cell.states[0]) in reachable(new):
        raise error(last, f"reads s.{cell.states[0]}, which has another size under the projection that it allows")
    return graph, new


def reachable(roots: Iterable[Expression]) -> list[Expression]:
    """``roots`` and all they are made of, in the order they were made."""
    todo, found = [*roots], set()
    while todo:
        value = todo.pop()
        todo += () if value in found else value.inner
        found.add(value)
    return sorted(found, key=lambda value: value.index)
