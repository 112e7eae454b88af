"""Optional: take out of the loop what need not be in it. A program becomes three, which are run one after the other.

* Gathers that nothing carried leads to, such as a norm of the input's gates, go before the loop;
* gathers that lead to nothing carried (their gradients), and the outer products of the weights' gradients, go after it.

Those two carry nothing: they may take all steps at once, in any order, as a large product or a pass over T · B rows.
"""

from typing import NamedTuple

from .expressions import reachable
from .program import Output, Program, program, rebuilt, replaced, roots_of


class Hoisted(NamedTuple):
    """The three programs. Values that pass between them are outputs of the one and leaves of the other."""

    before: Program
    loop: Program
    after: Program


def hoist(whole: Program) -> Hoisted:
    """Divide a program; elementwise values that two of the three need are computed in both."""
    values, carried = reachable(whole.roots), set(whole.carried)
    leads_on = set(reachable(onward.value for onward in whole.carried.values()))
    late, behind = set(), set()
    for v in values:
        if (v.op == "leaf" and v.args[0] in carried) or late.intersection(v.inner):
            late.add(v)
            if (v.gathers and v not in leads_on) or behind.intersection(v.inner):
                behind.add(v)

    early = {v: f"early.{i}" for i, v in enumerate(v for v in values if v.gathers and v not in late)}
    before = program({}, {name: Output(f"T{v.axes}", v) for v, name in early.items()}, [], whole.names)
    given = rebuilt(whole.roots, {v: v.graph.leaf(name, f"T{v.axes}") for v, name in early.items()})

    outputs = {name: o for name, o in whole.outputs.items() if o.value not in behind}
    left = {o.value: (name, o.axes) for name, o in outputs.items() if o.axes == f"T{o.value.axes}"}
    ends = roots_of({}, {name: o for name, o in whole.outputs.items() if o.value in behind}, whole.outers)
    for v in [v for b in reachable(ends) if b in behind for v in b.inner] + ends:
        if v in late and v not in behind and v not in left:
            left[v] = f"left.{len(left)}", f"T{v.axes}"
    loop = program(
        replaced(whole.carried, given),
        {name: Output(axes, given[v]) for v, (name, axes) in left.items()} | replaced(outputs, given),
        [],
        whole.names,
    )
    known = rebuilt(ends, {v: v.graph.leaf(*place) for v, place in left.items()} | {v: given[v] for v in early})
    after = program(
        {},
        replaced({name: o for name, o in whole.outputs.items() if o.value in behind}, known),
        [o._replace(d=known[o.d], operand=known[o.operand]) for o in whole.outers],
        whole.names,
    )
    return Hoisted(before, loop, after)
