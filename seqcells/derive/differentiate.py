"""Second: the gradients of the equations, in reverse, as expressions of the same graph."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..cells.activations import Activation
from .trace import Expression, reachable

# (d, y, a, b): the gradient of the value, the value, the arguments → the gradients of the arguments.
ARITHMETIC: Mapping[str, Any] = {
    "+": lambda d, y, a, b: (d, d),
    "-": lambda d, y, a, b: (d, -d),
    "*": lambda d, y, a, b: (d * b, d * a),
    "/": lambda d, y, a, b: (d / b, -(d / b) * y),
    "neg": lambda d, y, a: (-d,),
    ">": lambda d, y, a, b: (None, None),
}


def gradients(values: Sequence[Expression], seeds: Sequence[Expression]) -> dict[Expression, Expression]:
    """The gradient of everything that ``values`` are made of, ``seeds`` being those of the values themselves."""
    total: dict[Expression, Expression] = {}

    def add(to: Expression, part: Expression | None) -> None:
        if part is not None and to.op != "constant":
            total[to] = _sum(total[to], part) if to in total else part

    for value, seed in zip(values, seeds, strict=True):
        add(value, seed)
    for y in reversed(reachable(values)):
        if y in total and y.inner:
            for argument, part in zip(y.inner, _pull(total[y], y), strict=True):
                add(argument, part)
    return total


def _pull(d: Expression, y: Expression) -> tuple[Expression | None, ...]:
    if not isinstance(y.op, Activation):
        return ARITHMETIC[y.op](d, y, *y.args)
    parts = y.op.pullback(d, y, *y.args)
    return parts if isinstance(parts, tuple) else (parts,)


def _sum(a: Expression, b: Expression) -> Expression:
    """a + b, a factor they share taken out: d - d·z becomes d·(1 - z), which is fewer roundings too."""
    negative = b.op == "neg"
    left, right = _factors(a), _factors(b.args[0] if negative else b)
    for factor in left:
        if factor in right and factor.op != "constant":
            rest, other = _without(left, factor), _without(right, factor)
            return factor * (rest - other if negative else rest + other)
    return a + b


def _factors(value: Expression) -> tuple[Expression, ...]:
    return value.args if value.op == "*" else (value,)


def _without(factors: tuple[Expression, ...], factor: Expression) -> Expression:
    rest = list(factors)
    rest.remove(factor)
    return rest[0] if rest else factor.graph.constant(1)
