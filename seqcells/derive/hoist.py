"""Hoist (optional): move computations out of the loop over time. A program becomes three programs, run in sequence.

* Gathers that depend on no carried value, such as a norm of the input's gates, go before the loop.
* Gathers on which no carried value depends, such as the gradients of these, go after the loop. So do the outer products
  of the weights' gradients.
* A transposed product may be split: the row blocks that depend on no carried value go before the loop.
* The program before the loop carries a state that reads no other state. The program after the loop carries a state that
  no other state reads, such as the gradient of the former. Neither state may be gathered on the way to its next value.
  Other gathers of these states leave the loop, too.

Apart from such states, the programs before and after the loop carry nothing. They may process all steps at once, as a
large product or a pass over T · B rows.
"""

from collections.abc import Collection
from typing import NamedTuple

from .expressions import Expression, Product, reachable
from .program import Output, Program, program, rebuilt, replaced, roots_of


class Hoisted(NamedTuple):
    """The three programs. A value that a later program needs is an output of the earlier program, and a leaf there."""

    before: Program
    loop: Program
    after: Program


def hoist(whole: Program) -> Hoisted:
    """Divide a program into three; an elementwise value that two of them need is computed in both."""
    whole = _parted(whole)
    values, (first, last) = reachable(whole.roots), _apart(whole)
    inside = whole.carried.keys() - first - last
    leads_on = set(reachable(whole.carried[name].value for name in inside | first))
    late, behind = set(), set()
    for v in values:
        own = _is_leaf(v, last)
        if own or _is_leaf(v, inside) or late.intersection(v.inner):
            late.add(v)
            if own or (v.gathers and v not in leads_on) or behind.intersection(v.inner):
                behind.add(v)

    early = [v for v in values if v not in late and (v.gathers or _is_leaf(v, first))]
    early = {v: f"early.{i}" for i, v in enumerate(early)}
    before = program(
        _only(whole.carried, first), {name: Output(f"T{v.axes}", v) for v, name in early.items()}, [], whole.names
    )
    given = rebuilt(whole.roots, {v: v.graph.leaf(name, f"T{v.axes}") for v, name in early.items()})

    outputs = {name: o for name, o in whole.outputs.items() if o.value not in behind}
    left = {o.value: (name, o.axes) for name, o in outputs.items() if o.axes == f"T{o.value.axes}"}
    results = {name: o for name, o in whole.outputs.items() if o.value in behind}
    ends = roots_of(_only(whole.carried, last), results, whole.outers)
    for v in [v for b in reachable(ends) if b in behind for v in b.inner] + ends:
        if v in late and v not in behind and v not in left:
            left[v] = f"left.{len(left)}", f"T{v.axes}"
    loop = program(
        replaced(_only(whole.carried, inside), given),
        {name: Output(axes, given[v]) for v, (name, axes) in left.items()} | replaced(outputs, given),
        [],
        whole.names,
    )
    known = rebuilt(ends, {v: v.graph.leaf(*place) for v, place in left.items()} | {v: given[v] for v in early})
    after = program(
        replaced(_only(whole.carried, last), known),
        replaced(results, known),
        [o._replace(d=known[o.d], operand=known[o.operand]) for o in whole.outers],
        whole.names,
    )
    return Hoisted(before, loop, after)


def _parted(whole: Program) -> Program:
    """The program with transposed products split in two, if only some of their row blocks depend on carried values."""
    late, found = set(), dict[Expression, Expression]()
    for v in reachable(whole.roots):
        if _is_leaf(v, whole.carried) or late.intersection(v.inner):
            late.add(v)
        found[v] = v.graph.make(v.op, *(found[arg] for arg in v.args)) if v.inner else v
        if isinstance(v.op, Product) and v.op.transposed and len({arg in late for arg in v.args}) == 2:
            parts = [[k for k, arg in enumerate(v.args) if (arg in late) == waits] for waits in (True, False)]
            ops = [v.op._replace(blocks=tuple(v.op.blocks[k] for k in part)) for part in parts]
            made = [[found[v.args[k]] for k in part] for part in parts]
            waiting, other = (v.graph.make(op, *args) for op, args in zip(ops, made, strict=True))
            found[v] = waiting + other
    return program(
        replaced(whole.carried, found),
        replaced(whole.outputs, found),
        [o._replace(d=found[o.d], operand=found[o.operand]) for o in whole.outers],
        {found[v]: name for v, name in whole.names.items() if v in found},
    )


def _apart(whole: Program) -> tuple[set[str], set[str]]:
    """States that read no other state, and states that no other state reads; neither kind has gathers on its way to the
    next value."""
    onward = {name: output.value for name, output in whole.carried.items()}
    reads = {name: {v.args[0] for v in reachable([value]) if v.op == "leaf"} for name, value in onward.items()}
    first = {name for name, value in onward.items() if not any(_is_gathered(value, other) for other in onward)}
    while any(reads[name] & onward.keys() - first for name in first):
        first = {name for name in first if not reads[name] & onward.keys() - first}
    last = {name for name in onward if not any(name in reads[other] for other in onward if other != name)}
    last = {name for name in last - first if not _is_gathered(onward[name], name)}
    return (first if first != onward.keys() else set()), (last if last != onward.keys() else set())


def _is_gathered(value: Expression, name: str) -> bool:
    """Whether there is a gather between the leaf ``name`` and the value that depends on it."""
    met = set()
    for v in reachable([value]):
        if _is_leaf(v, (name,)) or met.intersection(v.inner):
            met.add(v)
    return any(v.gathers for v in met)


def _is_leaf(value: Expression, names: Collection[str]) -> bool:
    return value.op == "leaf" and value.args[0] in names


def _only(carried: dict[str, Output], names: Collection[str]) -> dict[str, Output]:
    return {name: output for name, output in carried.items() if name in names}
