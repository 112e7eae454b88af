"""Second: the gradients of one step, in reverse, as expressions of the same graph.

A gradient's axes say what it is: where it has fewer than its value, it is the same along the others; where it has more,
it is the sum along them. Who reads the gradient sums over time and sequences; a sum over units is a gather.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

from ..cells import units
from ..cells.activations import Activation, where
from ..cells.units import Reduction
from .expressions import Expression, Product, reachable, wider

# (d, y, a, b): the gradient of the value, the value, the arguments → the gradients of the arguments.
RULES: dict[str, Callable[..., Any]] = {
    "+": lambda d, y, a, b: (d, d),
    "-": lambda d, y, a, b: (d, -d),
    "*": lambda d, y, a, b: (d * b, d * a),
    "/": lambda d, y, a, b: (d / b, -(d / b) * y),
    "neg": lambda d, y, a: (-d,),
    ">": lambda d, y, a, b: (None, None),
}


class Outer(NamedTuple):
    """A term of a weight's gradient: in each step the outer product of d and the operand is added to a row block."""

    weight: str
    block: int
    heads: int
    d: Expression
    operand: Expression
    axes: str = "HH"
    """The letters of their units."""


class Gradients(NamedTuple):
    """``total``: of each value that there is one for; ``outers``: of the weights."""

    total: dict[Expression, Expression]
    outers: list[Outer]


def gradients(
    values: Sequence[Expression],
    seeds: Sequence[Expression],
    valid: Expression | None = None,
    boundary: Collection[Expression] = (),
) -> Gradients:
    """The gradients of everything that ``values`` are made of.

    Where ``valid`` does not hold, no gradient leaves the step, whatever it comes to there: a product with zero would
    not do, for in sequences that have ended backward may meet an infinity.

    Args:
        seeds: the gradients of the values themselves.
        valid: which sequences have not ended. Default: all
        boundary: values on the edge of the step, which its equations do not make. Default: none
    """
    total: dict[Expression, Expression] = {}
    outers: list[Outer] = []

    def guarded(value: Expression) -> Expression:
        return value if valid is None else where(valid, value, 0.0)

    def add(to: Expression, part: Expression | None) -> None:
        if part is None or to.op == "constant" or part.args == (0.0,):
            return
        total[to] = _sum(*_alike(total[to], part, to)) if to in total else part

    for value, seed in zip(values, seeds, strict=True):
        add(value, seed)
    order = reachable(values)
    for y in reversed(order):
        if y not in total or not y.inner:
            continue
        if isinstance(y.op, Product):
            # All row blocks of a product at once, when the last of them, which was made first, is met.
            met = [z for z in order if z in total and _are_of_one_product(z, y)]
            if y is not met[0]:
                continue
            d, operand = [guarded(total[z]) for z in met], guarded(y.args[0])
            axes, blocks = y.op.axis + y.op.of, tuple(z.op.blocks[0] for z in met)
            outers += [Outer(y.op.weight, k, y.op.heads, dk, operand, axes) for k, dk in zip(blocks, d, strict=True)]
            transposed = y.op._replace(blocks=blocks, transposed=True, axis=y.op.of, of=y.op.axis)
            parts = (y.graph.make(transposed, *(total[z] for z in met)),)
        else:
            rule, d = y.op.pullback if isinstance(y.op, Activation) else RULES[y.op], total[y]
            if isinstance(y.op, Reduction) and wider(d.unit_axis, y.unit_axis):
                d = _summed(d, y.unit_axis)
            parts = rule(d, y, *y.args)
        for argument, part in zip(y.args, parts if isinstance(parts, tuple) else (parts,), strict=True):
            if part is not None:
                leaves_step = y not in boundary and (not argument.inner or argument in boundary)
                part = _narrowed(part, y, argument, bool(argument.inner) or argument in boundary)
                add(argument, guarded(part) if leaves_step else part)
    return Gradients(total, outers)


def _are_of_one_product(z: Expression, y: Expression) -> bool:
    """Whether they are row blocks of one product."""
    return isinstance(z.op, Product) and z.op.weight == y.op.weight and z.args == y.args


def _narrowed(part: Expression, y: Expression, argument: Expression, read_here: bool) -> Expression:
    """The gradient of a broadcast over the units: a sum over them; a leaf's, but a state's, is left to who reads it."""
    to = argument.unit_axis
    size = y.op.of if isinstance(y.op, Product) else y.unit_axis
    size = to.replace("N", "H") if isinstance(y.op, Reduction) else size  # what it says is for each unit
    if not wider(size, to):
        return part
    has, count = part.unit_axis, part.graph.size
    if wider(size, has):  # it is the same for all of those that it lacks
        part = part * (count(size) / count(has if wider(has, to) else to))
    return _summed(part, to) if wider(has, to) and read_here and "B" in argument.axes else part


def _summed(v: Expression, to: str) -> Expression:
    """The sum over all units, or over those of each head."""
    if v.unit_axis == "N":
        return units.sum(v) / (v.graph.size("H") / v.graph.size("N"))
    return units.sum(v, v.graph.heads if to == "N" else 1)


def _alike(a: Expression, b: Expression, of: Expression) -> tuple[Expression, Expression]:
    """Two parts of one gradient; a sum over units and a term of such a sum do not add up as they are."""
    size, count = of.unit_axis, of.graph.size
    over_a, over_b = (v.unit_axis if wider(v.unit_axis, size) else size for v in (a, b))
    if over_a == over_b:
        return a, b
    if wider(over_a, over_b):
        return a, b / (count(over_a) / count(over_b))
    if wider(over_b, over_a):
        return a / (count(over_b) / count(over_a)), b
    return _summed(a, size), _summed(b, size)  # sums over units of different numbers


def _part_ways(a: Expression, b: Expression) -> bool:
    """Whether one is carried from the step before, and so there in the first stage alone, and the other is gathered."""
    carried = [v.op == "leaf" and v.args[0].startswith("d.carried.") for v in (a, b)]
    return any(carried) and any(v.gathers for v in reachable([a, b]))


def _sum(a: Expression, b: Expression) -> Expression:
    """a + b, what they share taken out: d - d·z becomes d·(1 - z), which is fewer roundings too; two sums over units
    become one, and two `where`s."""
    a, b = (b, a) if a.op == "neg" else (a, b)
    summed = isinstance(a.op, Reduction) and a.op.name == "sum" and a.op is b.op
    if summed and a.args[0].unit_axis == b.args[0].unit_axis:
        return units.sum(_sum(a.args[0], b.args[0]), a.op.heads)
    if a.op == b.op == where and a.args[0] is b.args[0]:
        shared = [i for i in (1, 2) if a.args[i] is b.args[i] and a.args[i].args == (0.0,)]
        if len(shared) == 1 and not _part_ways(a.args[3 - shared[0]], b.args[3 - shared[0]]):
            other = _sum(a.args[3 - shared[0]], b.args[3 - shared[0]])
            return where(a.args[0], *((0.0, other) if shared == [1] else (other, 0.0)))
    negative = b.op == "neg"
    left, right = ([*v.args] if v.op == "*" else [v] for v in (a, b.args[0] if negative else b))
    for factor in left:
        if factor in right and factor.op != "constant":
            left.remove(factor)
            right.remove(factor)
            rest, other = (rest[0] if rest else factor.graph.constant(1) for rest in (left, right))
            return factor * (rest - other if negative else rest + other)
    return a + b
