"""What an engine runs: a loop over time whose step is a list of stages. Forward and backward are such loops alike."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from .differentiate import Outer
from .expressions import Expression, Product, reachable


class Stage(NamedTuple):
    """Gather, then go on without looking at other units: products and reductions, then elementwise values in order."""

    gathers: list[Expression]
    block: list[Expression]


class Output(NamedTuple):
    """A value and the axes of what is made of it: along those that the value has beyond them (T too) it is summed up,
    along those that it lacks repeated."""

    axes: str
    value: Expression


class Program(NamedTuple):
    """A loop over time. In each step: stage after stage; then outputs and outer products; then what is carried on.

    * ``stages``: before the first nothing is gathered, before each later one something is;
    * ``carried``: of each leaf that is carried its value in the next step; what is left at the end is a result, too;
    * ``outputs``: the other results by name; ``outers``: the weights' gradients;
    * ``names``: what the cell's author called the values.
    """

    stages: list[Stage]
    carried: dict[str, Output]
    outputs: dict[str, Output]
    outers: list[Outer]
    names: dict[Expression, str]

    @property
    def leaves(self) -> dict[str, str]:
        """The axes of all that is read, by name."""
        return dict(v.args for v in reachable(self.roots) if v.op == "leaf")

    @property
    def roots(self) -> list[Expression]:
        """The values that a step is computed for."""
        return roots_of(self.carried, self.outputs, self.outers)


def program(
    carried: dict[str, Output],
    outputs: dict[str, Output],
    outers: list[Outer],
    names: dict[Expression, str],
    cuts: Callable[[Expression], bool] = lambda value: value.gathers,
) -> Program:
    """Cut wherever a value is gathered: its stage is the largest number of gathers in a row that lead to it.

    Args:
        cuts: whether a value is gathered between stages. Default: all that needs other units
    """
    stages, stage_of = [Stage([], [])], {}
    for value in reachable(roots_of(carried, outputs, outers)):
        stage = stage_of[value] = max((stage_of[arg] for arg in value.inner), default=0) + cuts(value)
        if stage == len(stages):
            stages.append(Stage([], []))
        if value.inner:
            (stages[stage].gathers if cuts(value) else stages[stage].block).append(value)
    if len(stages) == 1:  # a step is followed by the next one's first stage, and so has at least one more
        stages.append(Stage([], []))
    return Program(stages, carried, outputs, outers, names)


def cut_at_products(whole: Program) -> Program:
    """The same, cut at products alone: for an engine whose blocks see whole rows, and so have reductions in them."""
    parts = whole.carried, whole.outputs, whole.outers, whole.names
    return program(*parts, cuts=lambda value: isinstance(value.op, Product))


def rebuilt(roots: Sequence[Expression], given: Mapping[Expression, Expression]) -> dict[Expression, Expression]:
    """All that roots are made of, in terms of what is given in the place of some of it."""
    found = dict(given)
    for v in reachable(roots):
        if v not in found:
            found[v] = v.graph.make(v.op, *(found[arg] for arg in v.args)) if v.inner else v
    return found


def roots_of(carried: Mapping[str, Output], outputs: Mapping[str, Output], outers: Sequence[Outer]) -> list[Expression]:
    """The values that a step is computed for."""
    accumulated = [v for outer in outers for v in (outer.d, outer.operand)]
    return [*(output.value for output in (*carried.values(), *outputs.values())), *accumulated]


def replaced(outputs: Mapping[str, Output], given: Mapping[Expression, Expression]) -> dict[str, Output]:
    """The same, of what is given in the place of their values."""
    return {name: output._replace(value=given[output.value]) for name, output in outputs.items()}
