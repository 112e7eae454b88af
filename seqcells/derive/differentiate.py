"""Second: the gradients of the equations, in reverse, as expressions of the same graph."""

from collections.abc import Sequence

from ..cells.activations import Activation
from .trace import Expression, reachable

# (d, y, a, b): the gradient of the value, the value, the arguments → the gradients of the arguments.
RULES = {
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
            rule = y.op.pullback if isinstance(y.op, Activation) else RULES[y.op]
            parts = rule(total[y], y, *y.args)
            for argument, part in zip(y.args, parts if isinstance(parts, tuple) else (parts,), strict=True):
                add(argument, part)
    return total


def _sum(a: Expression, b: Expression) -> Expression:
    """a + b, a factor they share taken out: d - d·z becomes d·(1 - z), which is fewer roundings too."""
    a, b = (b, a) if a.op == "neg" else (a, b)
    negative = b.op == "neg"
    left, right = ([*v.args] if v.op == "*" else [v] for v in (a, b.args[0] if negative else b))
    for factor in left:
        if factor in right and factor.op != "constant":
            left.remove(factor)
            right.remove(factor)
            rest, other = (rest[0] if rest else factor.graph.constant(1) for rest in (left, right))
            return factor * (rest - other if negative else rest + other)
    return a + b
