"""Cut: a program, which an engine runs, is a loop over time whose step is a list of stages.

The forward pass and the backward pass are both such programs.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from .differentiate import Outer
from .expressions import Expression, Product, reachable


class Stage(NamedTuple):
    """First gathers, which are products and reductions; then elementwise values in order, which need no other units."""

    gathers: list[Expression]
    block: list[Expression]


class Output(NamedTuple):
    """A value and the axes of the result that is made of it.

    Along an axis that only the value has, T too, the value is summed. Along an axis that only the result has, the value
    is repeated.
    """

    axes: str
    value: Expression


class Program(NamedTuple):
    """A loop over time. A step runs its stages, then writes outputs and outer products, then carries values onward.

    * ``stages``: the first stage gathers nothing, each later stage does;
    * ``carried``: for each carried leaf its value in the next step; the values after the last step are results, too;
    * ``outputs``: the other results by name; ``outers``: the terms of the weights' gradients;
    * ``names``: the names of values in the cell's source.
    """

    stages: list[Stage]
    carried: dict[str, Output]
    outputs: dict[str, Output]
    outers: list[Outer]
    names: dict[Expression, str]

    @property
    def leaves(self) -> dict[str, str]:
        """The axes of all leaves that the program reads, by name."""
        return dict(v.args for v in reachable(self.roots) if v.op == "leaf")

    @property
    def roots(self) -> list[Expression]:
        """The values that are the purpose of a step: its results and the operands of outer products."""
        return roots_of(self.carried, self.outputs, self.outers)


def program(
    carried: dict[str, Output],
    outputs: dict[str, Output],
    outers: list[Outer],
    names: dict[Expression, str],
    cuts: Callable[[Expression], bool] = lambda value: value.gathers,
) -> Program:
    """Cut a step into stages. The stage of a value is the largest number of successive gathers that lead to it.

    Args:
        cuts: whether a new stage begins at a value. Default: at every product and reduction
    """
    stages, stage_of = [Stage([], [])], {}
    for value in reachable(roots_of(carried, outputs, outers)):
        stage = stage_of[value] = max((stage_of[arg] for arg in value.inner), default=0) + cuts(value)
        if stage == len(stages):
            stages.append(Stage([], []))
        if value.inner:
            (stages[stage].gathers if cuts(value) else stages[stage].block).append(value)
    if len(stages) == 1:  # a program has at least two stages, as the first stage runs right after the last of a step
        stages.append(Stage([], []))
    return Program(stages, carried, outputs, outers, names)


def cut_at_products(whole: Program) -> Program:
    """The program cut at products alone, for an engine whose blocks have whole rows and so compute reductions."""
    parts = whole.carried, whole.outputs, whole.outers, whole.names
    return program(*parts, cuts=lambda value: isinstance(value.op, Product))


def rebuilt(roots: Sequence[Expression], given: Mapping[Expression, Expression]) -> dict[Expression, Expression]:
    """The roots and all expressions that they depend on, rebuilt with the expressions in ``given`` replaced."""
    found = dict(given)
    for v in reachable(roots):
        if v not in found:
            found[v] = v.graph.make(v.op, *(found[arg] for arg in v.args)) if v.inner else v
    return found


def roots_of(carried: Mapping[str, Output], outputs: Mapping[str, Output], outers: Sequence[Outer]) -> list[Expression]:
    """The values that are the purpose of a step: its results and the operands of outer products."""
    accumulated = [v for outer in outers for v in (outer.d, outer.operand)]
    return [*(output.value for output in (*carried.values(), *outputs.values())), *accumulated]


def replaced(outputs: Mapping[str, Output], given: Mapping[Expression, Expression]) -> dict[str, Output]:
    """The outputs with their values replaced as ``given`` says."""
    return {name: output._replace(value=given[output.value]) for name, output in outputs.items()}
