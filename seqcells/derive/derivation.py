"""Derive: a cell's forward and backward programs, and the values that the forward pass keeps for the backward pass."""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from ..cells import Cell, units
from .differentiate import gradients
from .expressions import Expression, reachable
from .program import Output, Program, program, rebuilt, replaced, roots_of
from .trace import trace


class Derivation(NamedTuple):
    """A cell's two programs.

    ``saved`` has, by name, the values that the forward pass keeps for the backward pass besides the states.
    """

    forward: Program
    backward: Program
    saved: dict[str, Expression]


def derive(
    cell: type[Cell], *, reset: bool = False, lengths: bool = False, kept: Sequence[str] | None = None
) -> Derivation:
    """Both programs of a cell, with the boundaries of a call and the ``kept`` values that the call asks for.

    The forward program reads the leaves of `trace`. The backward program reads these leaves too, and also:

    * the states ``before.<state>`` and ``after.<state>`` each step, and the values ``saved.<name>``;
    * the gradients ``d.carried.<state>``, ``d.output`` and ``d.kept.<name>``.

    The results of the backward program are the gradients of all leaves, each named ``d.<leaf>``.

    Args:
        reset: whether the call has resets. Default: False
        lengths: whether the call has sequences that end early. Default: False
        kept: names of the cell's kept values. Default: all

    Raises:
        DerivationError: `step` cannot be run on symbols.
    """
    graph, carried, entering, new, leaving, values, valid = trace(cell, reset, lengths, kept)
    ends = [*leaving, *values.values()]
    axes = {name: f"TB{value.unit_axis}" for name, value in values.items()}
    states = {state: f"TB{size}" for state, size in cell.state_sizes.items()}
    seeds = [graph.leaf(f"d.{c.args[0]}", c.axes) for c in carried]
    seeds += [graph.leaf(f"d.{name}", axes[name]) for name in values]
    total, outers = gradients(ends, seeds, valid, {*entering, *(ends if lengths else ())})

    onward = {f"d.{c.args[0]}": Output(c.axes, total.get(c, graph.constant(0))) for c in carried}
    inputs = [v for v in reachable(ends) if v.op == "leaf" and v in total and v not in carried]
    inputs = [v for v in inputs if not v.args[0].startswith("units.")]
    wanted = {f"d.{v.args[0]}": Output(v.args[1], _of_row(v.args[1], total[v])) for v in inputs}
    roots = roots_of(onward, wanted, outers)

    # Where a sequence has ended, `after` is not what `step` returned, but no gradient leaves the step there.
    given = {c: graph.leaf(f"before.{state}", states[state]) for state, c in zip(states, carried, strict=True)}
    made = {v: state for state, v in zip(states, new, strict=True) if v.inner}
    given |= {v: graph.leaf(f"after.{state}", states[state]) for v, state in made.items()}
    called = made | graph.names()
    saved = _named(_to_save(roots, reachable(ends), given, {f"x.{gate}" for gate in cell.gates}), called)
    given |= {v: graph.leaf(f"saved.{name}", f"T{v.axes}") for name, v in saved.items()}
    given = rebuilt(roots, given)

    names = {given[d]: f"d_{called[v]}" for v, d in total.items() if v in called and d in given}
    names |= {given[v]: name for v, name in called.items() if v in given and given[v].inner}
    names = {given[output.value]: name.replace(".", "_") for name, output in reversed(wanted.items())} | names
    backward = program(
        replaced(onward, given),
        replaced(wanted, given),
        [outer._replace(d=given[outer.d], operand=given[outer.operand]) for outer in outers],
        names,
    )
    outputs = {name: Output(axes[name], value) for name, value in values.items()}
    outputs |= {f"saved.{name}": Output(f"T{v.axes}", v) for name, v in saved.items()}
    for state, value in zip(cell.states, leaving, strict=True):
        if {f"before.{state}", f"after.{state}"} & backward.leaves.keys():
            outputs[f"after.{state}"] = Output(states[state], value)
    onward = {c.args[0]: Output(c.axes, value) for c, value in zip(carried, leaving, strict=True)}
    return Derivation(program(onward, outputs, [], called), backward, saved)


def _of_row(axes: str, gradient: Expression) -> Expression:
    """The gradient of a leaf with these axes: for one number per sequence, the sum over units, which is a gather."""
    return units.sum(gradient) if axes in ("B", "TB") and gradient.unit_axis else gradient


def _to_save(
    roots: Sequence[Expression],
    forward: Sequence[Expression],
    given: Mapping[Expression, Expression],
    gates: Collection[str],
) -> list[Expression]:
    """The forward values that the backward pass uses but cannot recompute, in order.

    The backward pass has states, parameters and streams, and recomputes elementwise values of these. It repeats no
    gather. The input's gates no longer exist when the backward pass begins. A number of each sequence costs nothing
    beside a vector, so vectors that follow from such numbers are recomputed, and the numbers are saved.
    """

    def follow(
        known: Collection[Expression], mentioned: Collection[Expression] = ()
    ) -> tuple[set[Expression], list[Expression]]:
        known, saved = set(known), []
        for v in forward:
            if v not in known and v.inner and not v.gathers and known.issuperset(v.inner):
                known.add(v)
            elif v not in known and v in mentioned:
                known.add(v)
                saved.append(v)
        return known, saved

    known = set(given) | {v for v in forward if not v.inner and v.args[0] not in gates}
    free = follow(known)[0]
    numbers = {v for v in forward if v.axes in ("B", "BN") and v not in free and v.op != ">"}
    known |= numbers
    free = follow(known)[0]
    mentioned = _first(roots, {v for v in forward if v not in free and v.op != ">"}, {*given, *numbers})
    vectors = follow(known, mentioned)[1]
    return sorted([*vectors, *_first(roots, numbers, {*given, *vectors})], key=lambda v: v.index)


def _first(
    roots: Sequence[Expression], wanted: Collection[Expression], stop: Collection[Expression]
) -> set[Expression]:
    """The wanted values that are met first on each way from the roots to their arguments; ``stop`` ends a way."""
    todo, seen, found = [*roots], set(), set()
    while todo:
        v = todo.pop()
        if v in wanted:
            found.add(v)
        elif v not in seen and v not in stop:
            seen.add(v)
            todo += v.inner
    return found


def _named(values: Sequence[Expression], called: Mapping[Expression, str]) -> dict[str, Expression]:
    """A name for each value: from the cell's source, the input's gate, the product's row block, or else made up."""
    names: dict[str, Expression] = {}
    for i, v in enumerate(values):
        leaves = [a.args[0] for a in (v, *v.inner) if a.op == "leaf"]
        leaf = next((name for name in leaves if v.op == "leaf" or name.startswith("bias_")), "")
        made_up = leaf.removeprefix("bias_").replace(".", "_") or f"{getattr(v.op, 'name', 'v')}{i}"
        names[called.get(v, made_up)] = v
    return names
