"""The graph of one step's values, which `step` builds when it runs on symbols."""

import operator
import sys
from collections.abc import Callable, Iterable
from types import CodeType, FrameType
from typing import Any, NamedTuple

from ..cells.activations import Activation, where
from ..cells.units import Reduction


class DerivationError(ValueError):
    """A cell's `step` cannot be turned into kernels; the message names the line."""


class Product(NamedTuple):
    """An operation: row blocks of a weight applied to a vector, or, transposed, to one vector for each row block.

    With several ``heads`` the weight has one diagonal block for each head. ``axis`` is the letter of the result's size,
    ``of`` the letter of the operand's size.
    """

    weight: str
    blocks: tuple[int, ...]
    heads: int = 1
    transposed: bool = False
    axis: str = "H"
    of: str = "H"


def wider(a: str, b: str) -> bool:
    """Whether axis ``a`` is finer than axis ``b``: units (H) are finer than heads (N), any letter is finer than ""."""
    return a != b and a != "" and (b == "" or (a, b) == ("H", "N"))


def _binary(op: str) -> tuple[Any, Any]:
    return lambda a, b: a.graph.make(op, a, b), lambda a, b: a.graph.make(op, b, a)


class Expression:
    """A value of one step. Equal expressions of a graph are one object.

    * ``op``: one of ``+ - * / neg >``, an `Activation`, a `Reduction`, a `Product`, ``"constant"`` or ``"leaf"``;
    * ``args``: expressions; for a constant its number, for a leaf its name and its axes;
    * ``axes``: the axes along which the value varies within a step: ``"B"`` for sequences, and the letter of its units'
      size. ``"B"`` alone is one number of each sequence, ``"BN"`` one number of each head. T among the axes of a leaf
      says that the leaf differs from step to step; ``axes`` leaves T out;
    * ``index``: the number of expressions that the graph had made before.
    """

    graph: "Graph"
    op: Any
    args: tuple[Any, ...]
    axes: str
    index: int

    def __init__(self, graph: "Graph", op: Any, args: tuple[Any, ...], axes: str) -> None:
        self.graph, self.op, self.args, self.axes, self.index = graph, op, args, axes, len(graph.made)

    @property
    def inner(self) -> tuple["Expression", ...]:
        """The expressions that this one is made of; none for constants and leaves."""
        return tuple(arg for arg in self.args if isinstance(arg, Expression))

    @property
    def gathers(self) -> bool:
        """Whether the value of a unit needs values of other units."""
        return isinstance(self.op, Reduction | Product)

    @property
    def unit_axis(self) -> str:
        """The letter of the size of the value's units; "" for a value without units."""
        return self.axes.replace("B", "")

    def units(self) -> "Expression":
        """The number of the value's units; numbers of heads count as vectors of all units."""
        return self.graph.size(self.unit_axis.replace("N", "H"))

    def apply(self, activation: Activation, *values: Any) -> "Expression":
        return self.graph.make(activation, *values)

    __add__: Any
    __radd__: Any
    __add__, __radd__ = _binary("+")
    __sub__: Any
    __rsub__: Any
    __sub__, __rsub__ = _binary("-")
    __mul__: Any
    __rmul__: Any
    __mul__, __rmul__ = _binary("*")
    __truediv__: Any
    __rtruediv__: Any
    __truediv__, __rtruediv__ = _binary("/")
    __gt__: Any
    __lt__: Any
    __gt__, __lt__ = _binary(">")

    def __neg__(self) -> "Expression":
        return self.graph.make("neg", self)

    def __bool__(self) -> bool:
        raise DerivationError("a step cannot branch on values; use where(condition, a, b)")


class Graph:
    """Makes expressions, each once, and remembers the names that the code of `step` gave them.

    ``heads``: the size of the letter N.
    """

    code: CodeType
    heads: int
    frame: FrameType | None
    made: dict[tuple[Any, ...], Expression]

    def __init__(self, code: CodeType, heads: int = 1) -> None:
        self.code, self.heads, self.frame = code, heads, None
        self.made = {}

    def make(self, op: Any, *args: Any) -> Expression:
        """The expression ``op`` of ``args``; arguments may be numbers.

        Raises:
            DerivationError: a condition is used other than as the first argument of `where`, or sizes do not match.
        """
        if self.frame is None:
            self.frame = sys._getframe(1)
            while self.frame is not None and self.frame.f_code is not self.code:
                self.frame = self.frame.f_back
        values = tuple(arg if isinstance(arg, Expression) else self.constant(arg) for arg in args)
        if any(v.op == ">" for v in (values[1:] if op is where else values)):
            raise DerivationError("a condition such as a > b goes into where() alone, as its first argument")
        simpler = _simpler(op, *values)
        if simpler is not None:
            return simpler
        places = [value.index for value in values]
        return self._once((op, *(sorted(places) if op in ("+", "*") else places)), op, values, _axes(op, values))

    def leaf(self, name: str, axes: str) -> Expression:
        """A value that is given to the step, such as ``x.i``."""
        return self._once(("leaf", name, axes), "leaf", (name, axes), axes.replace("T", ""))

    def size(self, letter: str) -> Expression:
        """The number of units that a letter stands for, as an expression; 1 for ""."""
        if letter in ("", "N"):
            return self.constant(self.heads if letter else 1)
        return self.leaf(f"units.{letter}", "")

    def constant(self, value: Any) -> Expression:
        return self._once(("constant", float(value)), "constant", (float(value),), "")

    def _once(self, key: tuple[Any, ...], op: Any, args: tuple[Any, ...], axes: str) -> Expression:
        if key not in self.made:
            self.made[key] = Expression(self, op, args, axes)
        return self.made[key]

    def names(self) -> dict[Expression, str]:
        """The names that `step` gave its values; the first name if a value has several."""
        values = reversed((self.frame.f_locals if self.frame else {}).items())
        return {value: name for name, value in values if isinstance(value, Expression) and value.inner}


def _axes(op: Any, values: tuple[Expression, ...]) -> str:
    """The axes of a value, from the axes of its arguments."""
    units = {value.unit_axis for value in values} - {""}
    units -= {"N"} if "H" in units else set()
    if len(units) > 1:
        raise DerivationError(f"{op} of values of different sizes: {' and '.join(sorted(units))}")
    unit = "".join(units)
    if isinstance(op, Product):
        if unit != op.of and not wider(op.of, unit):
            raise DerivationError(f"{op.weight} is applied to a value of size {unit}, not {op.of}")
        return f"B{op.axis}"
    sequences = "B" if any("B" in value.axes for value in values) else ""
    if isinstance(op, Reduction):
        if not unit:
            raise DerivationError(f"{op} over the units of a value that has none")
        return sequences + ("N" if op.heads > 1 else "")
    return sequences + unit


def _simpler(op: Any, a: Expression, b: Expression | None = None, *_: Expression) -> Expression | None:
    """The same value in fewer operations, or None.

    Signs are moved and factors of 1 removed only where the floating-point result is exactly the same. Operations on
    constants are carried out.
    """
    operands = [value for value in (a, b) if value is not None]
    numbers = [value.args[0] for value in operands if value.op == "constant"]
    if op in OF_NUMBERS and len(numbers) == len(operands) and not (op == "/" and numbers[1] == 0):
        return a.graph.constant(OF_NUMBERS[op](*numbers))
    if b is None:
        if op == "neg" and a.op in ("neg", "-"):
            return a.args[0] if a.op == "neg" else a.args[1] - a.args[0]
        return None
    if op in ("*", "/") and "neg" in (a.op, b.op):
        return -a.graph.make(op, a.args[0], b) if a.op == "neg" else -a.graph.make(op, a, b.args[0])
    if op in ("+", "-") and b.op == "neg":
        return a.graph.make("-" if op == "+" else "+", a, b.args[0])
    if op in ("*", "/") and b.args == (1,):
        return a
    return b if op == "*" and a.args == (1,) else None


OF_NUMBERS: dict[Any, Callable[..., Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "neg": operator.neg,
}


def reachable(roots: Iterable[Expression]) -> list[Expression]:
    """``roots`` and all expressions that they depend on, in the order in which they were made."""
    todo, found = [*roots], set()
    while todo:
        value = todo.pop()
        todo += () if value in found else value.inner
        found.add(value)
    return sorted(found, key=lambda value: value.index)
