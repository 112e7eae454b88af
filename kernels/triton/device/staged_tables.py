"""The tables by which a cell that is printed by stages describes its two passes."""

from collections.abc import Mapping
from typing import Any, NamedTuple

Columns = Mapping[str, tuple[int, ...]]
"""Some columns of arrays, by the array's name. A column has H units or, in an array without units, one number."""


class Stage(NamedTuple):
    """A stage's function is given the values of ``reads`` and returns the values of ``writes``, both in the table's
    order. ``reduced`` has how many numbers of a row each round of the stage's reductions gives."""

    reads: Columns
    writes: Columns
    reduced: tuple[int, ...]


class Multiplied(NamedTuple):
    """A product before a ``stage``: the row ``blocks`` of a weight times the column of ``operand.<k>``, k being
    ``operand``. A transposed product multiplies as many columns of the operand as there are blocks, and sums. The n-th
    product of a pass gives ``product.<n>``."""

    stage: int
    weight: str
    operand: int
    blocks: tuple[int, ...]
    transposed: bool


class Sum(NamedTuple):
    """A column of an array whose terms are summed into gradients. ``to`` has the array, column and axes of each
    gradient."""

    array: str
    column: int
    to: tuple[tuple[str, int, str], ...]


class Term(NamedTuple):
    """A row block of a weight's gradient: the sum over steps of the outer products of two columns, (array, column)
    each."""

    weight: str
    block: int
    d: tuple[str, int]
    operand: tuple[str, int]


class Pass(NamedTuple):
    """One pass, forward or backward.

    ``function(stage, read, valid, boundary, row)`` computes a stage. Stage 0 is the part of a step before the first
    product. It follows the last stage of the step before, and ``carried`` values pass to it in registers.

    ``arrays`` has the axes and the number of columns of each array: T for steps, B for sequences, H for units. Some
    arrays are the engine's own:

    * ``carried``: the states; in backward, their gradients;
    * ``before.<state>``: what ``after.<state>`` had a step earlier;
    * ``units``: the number of units;
    * ``kept``, ``kept_numbers``: values that pass from stage to stage of a step; ``operand.<k>``, ``product.<k>``: see
      `Multiplied`;
    * ``sums``, ``sums_numbers``: sums over steps, as is ``grad_reset_state.<state>``;
    * in backward: ``previous``, the first state as it enters a step; ``grad_products`` and ``multiplied``: see `Term`.
    """

    function: Any
    arrays: Mapping[str, tuple[str, int]]
    stages: tuple[Stage, ...]
    products: tuple[Multiplied, ...]
    sums: tuple[Sum, ...]
    terms: tuple[Term, ...]


class Staged(NamedTuple):
    """A cell's passes."""

    forward: Pass
    backward: Pass
