"""Differentiate: the gradients of one step, in reverse mode, as expressions of the same graph.

A gradient may have other axes than its value. Along an axis that only the value has, the gradient is constant. An axis
that only the gradient has is still to be summed over. The reader of a gradient sums over time and sequences. A sum over
units is a gather.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

from ..cells import units
from ..cells.activations import Activation, where
from ..cells.units import Reduction
from .expressions import Expression, Product, reachable, wider

# A rule takes d, the gradient of the value; y, the value; a and b, its arguments. It returns the gradients of a and b.
RULES: dict[str, Callable[..., Any]] = {
    "+": lambda d, y, a, b: (d, d),
    "-": lambda d, y, a, b: (d, -d),
    "*": lambda d, y, a, b: (d * b, d * a),
    "/": lambda d, y, a, b: (d / b, -(d / b) * y),
    "neg": lambda d, y, a: (-d,),
    ">": lambda d, y, a, b: (None, None),
}


class Outer(NamedTuple):
    """A term of a weight's gradient: each step adds the outer product of ``d`` and ``operand`` to a row block."""

    weight: str
    block: int
    heads: int
    d: Expression
    operand: Expression
    axes: str = "HH"
    """The letters of the sizes of ``d`` and ``operand``."""


class Gradients(NamedTuple):
    """``total``: the gradient of each value that has one; ``outers``: the terms of the weights' gradients."""

    total: dict[Expression, Expression]
    outers: list[Outer]


def gradients(
    values: Sequence[Expression],
    seeds: Sequence[Expression],
    valid: Expression | None = None,
    boundary: Collection[Expression] = (),
) -> Gradients:
    """The gradients of all expressions that ``values`` depend on.

    Where ``valid`` does not hold, no gradient leaves the step. This is a `where`, not a product with zero: in sequences
    that have ended, the backward pass may meet an infinity.

    Args:
        seeds: the gradients of ``values``, in the same order.
        valid: a condition that holds in sequences that have not ended. Default: no sequence ends
        boundary: values at the edge of the step, which are not made by the cell's equations. Default: none
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
            # Takes all row blocks of a product at once, when the reverse order meets the block that was made first.
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
    """Whether two expressions are row blocks of one product."""
    return isinstance(z.op, Product) and z.op.weight == y.op.weight and z.args == y.args


def _narrowed(part: Expression, y: Expression, argument: Expression, read_here: bool) -> Expression:
    """A part of an argument's gradient; if the argument was broadcast over units, the part is summed over them.

    For a leaf that is no state, ``read_here`` is False, and the sum is left to the reader of the gradient.
    """
    to = argument.unit_axis
    size = y.op.of if isinstance(y.op, Product) else y.unit_axis
    size = to.replace("N", "H") if isinstance(y.op, Reduction) else size  # a reduction's rule gives it for each unit
    if not wider(size, to):
        return part
    has, count = part.unit_axis, part.graph.size
    if wider(size, has):  # the part is the same for all units along the missing axis, so the sum is a multiple
        part = part * (count(size) / count(has if wider(has, to) else to))
    return _summed(part, to) if wider(has, to) and read_here and "B" in argument.axes else part


def _summed(v: Expression, to: str) -> Expression:
    """The sum over all units, or, for ``to`` = "N", over the units of each head."""
    if v.unit_axis == "N":
        return units.sum(v) / (v.graph.size("H") / v.graph.size("N"))
    return units.sum(v, v.graph.heads if to == "N" else 1)


def _alike(a: Expression, b: Expression, of: Expression) -> tuple[Expression, Expression]:
    """Two parts of the gradient of ``of``, made such that they may be added.

    A part may be a total, or a term for each unit that is still to be summed. A total is divided by the number of units
    to become such a term.
    """
    size, count = of.unit_axis, of.graph.size
    over_a, over_b = (v.unit_axis if wider(v.unit_axis, size) else size for v in (a, b))
    if over_a == over_b:
        return a, b
    if wider(over_a, over_b):
        return a, b / (count(over_a) / count(over_b))
    if wider(over_b, over_a):
        return a / (count(over_b) / count(over_a)), b
    return _summed(a, size), _summed(b, size)  # the two parts have units of different sizes


def _part_ways(a: Expression, b: Expression) -> bool:
    """Whether one part is carried from the previous step, so only the first stage has it, and the other is gathered."""
    carried = [v.op == "leaf" and v.args[0].startswith("d.carried.") for v in (a, b)]
    return any(carried) and any(v.gathers for v in reachable([a, b]))


def _sum(a: Expression, b: Expression) -> Expression:
    """a + b with common factors taken out: d - d·z becomes d·(1 - z), which also has fewer roundings.

    Two sums over units become one sum, and two `where`s with the same condition become one `where`.
    """
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
