"""Second: the gradients of one step, in reverse, as expressions of the same graph.

A gradient's axes say what it is: where it has fewer than its value, it is the same along the others; where it has more,
it is the sum along them. Who reads the gradient sums over time and sequences; a sum over units is a gather.
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple

from ..cells import units
from ..cells.activations import Activation, where
from ..cells.units import Reduction
from .expressions import Expression, Product, reachable

# (d, y, a, b): the gradient of the value, the value, the arguments → the gradients of the arguments.
RULES = {
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
            outers += [Outer(y.op.weight, *z.op.blocks, y.op.heads, guarded(total[z]), guarded(y.args[0])) for z in met]
            blocks, axis = tuple(z.op.blocks[0] for z in met), y.args[0].unit_axis
            transposed = y.op._replace(blocks=blocks, transposed=True, axis=axis)
            parts = (y.graph.make(transposed, *(total[z] for z in met)),)
        else:
            rule = y.op.pullback if isinstance(y.op, Activation) else RULES[y.op]
            summed = isinstance(y.op, Reduction) and total[y].unit_axis
            parts = rule(units.sum(total[y]) if summed else total[y], y, *y.args)
        for argument, part in zip(y.args, parts if isinstance(parts, tuple) else (parts,), strict=True):
            if part is not None:
                leaves_step = y not in boundary and (not argument.inner or argument in boundary)
                part = _narrowed(part, y, argument)
                add(argument, guarded(part) if leaves_step else part)
    return Gradients(total, outers)


def _are_of_one_product(z: Expression, y: Expression) -> bool:
    """Whether they are row blocks of one product."""
    return isinstance(z.op, Product) and z.op.weight == y.op.weight and z.args == y.args


def _narrowed(part: Expression, y: Expression, argument: Expression) -> Expression:
    """The gradient of a broadcast over the units: a sum over them; a leaf's is left to who reads it."""
    if not y.unit_axis or argument.unit_axis:
        return part
    if not part.unit_axis:
        return part * y.units()
    return units.sum(part) if argument.inner and "B" in argument.axes else part


def _alike(a: Expression, b: Expression, of: Expression) -> tuple[Expression, Expression]:
    """Two parts of one gradient; a sum over units and a term of such a sum do not add up as they are."""
    if of.unit_axis or bool(a.unit_axis) == bool(b.unit_axis):
        return a, b
    return (a, b / a.units()) if a.unit_axis else (a / b.units(), b)


def _sum(a: Expression, b: Expression) -> Expression:
    """a + b, what they share taken out: d - d·z becomes d·(1 - z), which is fewer roundings too; two sums over units
    become one, and two `where`s."""
    a, b = (b, a) if a.op == "neg" else (a, b)
    if a.op is units.sum and b.op is units.sum:
        return units.sum(_sum(a.args[0], b.args[0]))
    if a.op == b.op == where and a.args[0] is b.args[0]:
        shared = [i for i in (1, 2) if a.args[i] is b.args[i] and a.args[i].args == (0.0,)]
        if len(shared) == 1:
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
