"""First: run a cell's `step` on symbols. What comes back is its equations as a graph of expressions."""

import sys
import traceback
from types import CodeType, FrameType
from typing import Any

from ..cells import Cell
from ..cells.activations import Activation


class DerivationError(ValueError):
    """A cell's `step` cannot be turned into kernels; the message names the line."""


class Expression:
    """A value within the equations: an operation on others, a constant, or a leaf such as ``x.i``.

    ``op`` is one of ``+ - * / neg >``, an `Activation`, ``"constant"`` or the leaf's record (``"x"``, …);
    ``args`` are expressions, the constant's value, or the leaf's field. Equal expressions are one object;
    ``index`` counts them in the order they were made, arguments before what is made of them.
    """

    __slots__ = ("args", "graph", "index", "op")

    def __init__(self, graph: "Graph", op: Any, args: tuple) -> None:
        self.graph, self.op, self.args, self.index = graph, op, args, len(graph.made)

    @property
    def inner(self) -> tuple["Expression", ...]:
        """The expressions this one is made of."""
        return tuple(arg for arg in self.args if isinstance(arg, Expression))

    def is_(self, value: float) -> bool:
        return self.op == "constant" and self.args[0] == value

    def apply(self, activation: Activation, *values: Any) -> "Expression":
        return self.graph.make(activation, *values)

    def __bool__(self) -> bool:
        raise DerivationError("a step cannot branch on values; use where(condition, a, b)")

    def __pow__(self, power: int) -> "Expression":
        if not isinstance(power, int) or power < 1:
            raise DerivationError("only positive whole powers can be derived")
        return self if power == 1 else self ** (power - 1) * self

    def __pos__(self) -> "Expression":
        return self


def _operators(op: str) -> tuple[Any, Any]:
    return lambda a, b: a.graph.make(op, a, b), lambda a, b: a.graph.make(op, b, a)


for _op, _name in {"+": "add", "-": "sub", "*": "mul", "/": "truediv"}.items():
    _straight, _swapped = _operators(_op)
    setattr(Expression, f"__{_name}__", _straight)
    setattr(Expression, f"__r{_name}__", _swapped)
Expression.__gt__, Expression.__lt__ = _operators(">")
Expression.__neg__ = lambda a: a.graph.make("neg", a)


class Graph:
    """Makes expressions, each once, and remembers the names that ``code`` gave them."""

    def __init__(self, code: CodeType) -> None:
        self.code = code
        self.made: dict[tuple, Expression] = {}
        self.frame: FrameType | None = None

    def leaf(self, record: str, field: str) -> Expression:
        return self._once(record, (field,), (record, field))

    def make(self, op: Any, *args: Any) -> Expression:
        """``op`` of ``args``, numbers among them allowed."""
        if self.frame is None:
            self.frame = _frame_of(self.code)
        values = tuple(arg if isinstance(arg, Expression) else self.constant(arg) for arg in args)
        simpler = _simpler(op, *values)
        if simpler is not None:
            return simpler
        places = [value.index for value in values]
        return self._once(op, values, (op, *(sorted(places) if op in ("+", "*") else places)))

    def names(self) -> dict[Expression, str]:
        """What `step` called its values; the first name of those that have several."""
        found: dict[Expression, str] = {}
        for name, value in (self.frame.f_locals if self.frame else {}).items():
            if isinstance(value, Expression) and value.inner:
                found.setdefault(value, name)
        return found

    def constant(self, value: Any) -> Expression:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise DerivationError(f"a step cannot compute with a {type(value).__name__}")
        return self._once("constant", (float(value),), ("constant", float(value)))

    def _once(self, op: Any, args: tuple, key: tuple) -> Expression:
        if key not in self.made:
            self.made[key] = Expression(self, op, args)
        return self.made[key]


def _frame_of(code: CodeType) -> FrameType | None:
    frame = sys._getframe(1)
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back
    return frame


def _simpler(op: Any, a: Expression, b: Expression | None = None, *_: Expression) -> Expression | None:
    """The same value in fewer operations, where floating point agrees exactly: signs move, 1·a and 0 + a go."""
    make = a.graph.make
    if op == "neg":
        if a.op == "neg":
            return a.args[0]
        if a.op == "-":
            return make("-", *reversed(a.args))
        if a.op == "*" and a.args[1].op == "-":
            return a.args[0] * -a.args[1]
        return a.graph.constant(-a.args[0]) if a.op == "constant" else None
    if op in ("*", "/"):
        if a.op == "neg":
            return -make(op, a.args[0], b)
        if b.op == "neg":
            return -make(op, a, b.args[0])
        return a if b.is_(1) else b if op == "*" and a.is_(1) else None
    if op == "+":
        if b.op == "neg":
            return a - b.args[0]
        return b - a.args[0] if a.op == "neg" else b if a.is_(0) else a if b.is_(0) else None
    if op == "-":
        return a + b.args[0] if b.op == "neg" else -(a.args[0] + b) if a.op == "neg" else a if b.is_(0) else None
    return None


def trace(cell: type[Cell]) -> tuple[Graph, tuple[Expression, ...]]:
    """The graph of a cell's equations, and its new states within it.

    Raises:
        DerivationError: `step` does what cannot be derived, or does not return every state.
    """
    code = cell.step.__code__
    graph = Graph(code)
    records = {"x": cell.X, "r": cell.R, "s": cell.S, "p": cell.P}
    leaves = [tuple(graph.leaf(name, field) for field in record._fields) for name, record in records.items()]
    try:
        new = cell.advance(*leaves)
    except Exception as error:
        raise DerivationError(f"{_line(cell, error)}: {error}") from error
    where = f"{code.co_filename}:{max(line for *_, line in code.co_lines() if line)}"
    if len(new) != len(cell.states):
        raise DerivationError(
            f"{where}: step of {cell.__name__} returns {len(new)} of its {len(cell.states)} states "
            f"({', '.join(cell.states)})"
        )
    for state, value in zip(cell.states, new, strict=True):
        if not isinstance(value, Expression) or value.op == ">":
            raise DerivationError(f"{where}: step of {cell.__name__} returns no number for its state {state}")
    if cell.projection and graph.leaf("s", cell.states[0]) in reachable(new):
        raise DerivationError(
            f"{where}: step of {cell.__name__} reads s.{cell.states[0]}, which has another size under the "
            "projection that the cell allows"
        )
    return graph, new


def reachable(roots: Any) -> list[Expression]:
    """``roots`` and all they are made of, each after what it is made of, in the order of the source."""
    found: set[Expression] = set()
    todo = list(roots)
    while todo:
        expression = todo.pop()
        if expression not in found:
            found.add(expression)
            todo.extend(expression.inner)
    return sorted(found, key=lambda expression: expression.index)


def _line(cell: type[Cell], error: Exception) -> str:
    """Where in `step` an error arose."""
    code = cell.step.__code__
    frames = traceback.walk_tb(error.__traceback__)
    line = next((line for frame, line in frames if frame.f_code is code), code.co_firstlineno)
    return f"{code.co_filename}:{line}: step of {cell.__name__}"
