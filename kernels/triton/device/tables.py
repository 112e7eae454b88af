"""What a cell that is printed by stages tells of its two passes."""

from collections.abc import Mapping
from typing import Any, NamedTuple

Columns = Mapping[str, tuple[int, ...]]
"""Of arrays, by name, some columns: of units or, in arrays without units, of numbers."""


class Stage(NamedTuple):
    """What a stage ``reads``, in the order in which its function is given it, and ``writes``, as it returns it;
    ``reduced``: how many numbers of a row each of its rounds of reductions gives."""

    reads: Columns
    writes: Columns
    reduced: tuple[int, ...]


class Multiplied(NamedTuple):
    """A product before a ``stage``: row ``blocks`` of a weight applied to what ``operand.<k>`` has; transposed, to as
    many columns of it. The k-th one of a pass gives ``product.<k>``."""

    stage: int
    weight: str
    operand: int
    blocks: tuple[int, ...]
    transposed: bool


class Sum(NamedTuple):
    """A column of an array, all of whose terms add up to the gradients ``to``: array, column and axes of each."""

    array: str
    column: int
    to: tuple[tuple[str, int, str], ...]


class Term(NamedTuple):
    """A row block of a weight's gradient: the sum over steps of the outer products of two columns of arrays."""

    weight: str
    block: int
    d: tuple[str, int]
    operand: tuple[str, int]


class Pass(NamedTuple):
    """One pass.

    ``function(stage, read, valid, boundary, row)`` computes a stage. What comes before the first product is stage 0;
    after the last stage of a step comes stage 0 of the next one, and what is ``carried`` passes in registers.

    ``arrays`` has the axes and the number of columns of each: T for steps, B for sequences, H for units. Some are the
    engine's own:

    * ``carried``: the states, backward their gradients;
    * ``before.<state>``: what ``after.<state>`` had a step earlier;
    * ``units``: the number of units;
    * ``kept``, ``kept_numbers``: from stage to stage of a step; ``operand.<k>``, ``product.<k>``: see `Multiplied`;
    * ``sums``, ``sums_numbers``: added up over steps, as ``grad_fresh.<state>`` is;
    * backward ``previous``, the first state as it enters a step, and ``grad_products``, ``multiplied``: see `Term`.
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
