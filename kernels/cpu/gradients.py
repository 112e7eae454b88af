"""Weights' gradients: large products over all steps, of arrays that backward has left."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .linear import gemm


class Columns(NamedTuple):
    """A column of an array over all steps. It is as wide as a row block of the weight, or as the operand that the
    weight multiplies."""

    array: str
    column: int


class Run(NamedTuple):
    """``count`` row blocks of a weight, whose gradient is one product, or one product for each head. The factors are
    the row blocks' gradients ``d``, which backward leaves, and the ``operand`` that the row blocks multiply."""

    weight: str
    first: int
    count: int
    heads: int
    d: Columns
    operand: Columns
    adds: bool = False
    """Whether these row blocks have a gradient already, to which this one is added."""

    def parts(self, rows: int, columns: int) -> Iterator[tuple[int, int, int, int]]:
        """The products that make the gradient of a weight with ``rows`` rows in each row block and ``columns`` columns.
        Each product has four numbers: the result's first row in the weight, its number of rows, and the first columns
        of both factors. The factors are the row block's gradients and the operand."""
        size = rows // self.heads
        for head in range(self.heads):
            yield self.first * rows + head * size, self.count * size, head * size, head * columns


def runs(terms: Iterable[Run]) -> list[Run]:
    """The fewest runs for some terms. Consecutive row blocks whose gradients lie side by side share one product."""
    found: list[Run] = []
    seen = set()
    for term in terms:
        adds = (term.weight, term.first) in seen
        seen.add((term.weight, term.first))
        here, last = term._replace(adds=adds), found[-1] if found else None
        if last and _goes_on(last, here):
            found[-1] = last._replace(count=last.count + 1)
        else:
            found.append(here)
    return found


def _goes_on(run: Run, here: Run) -> bool:
    next_column = run.d._replace(column=run.d.column + run.count)
    follows = here.first == run.first + run.count and here.d == next_column
    return follows and here[:1] == run[:1] and here.operand == run.operand and here.adds == run.adds and run.heads == 1


def gradient(weight: Tensor, blocks: int, its_runs: Sequence[Run], arrays: Mapping[str, Tensor]) -> Tensor:
    """The gradient of a weight of ``blocks`` row blocks, from arrays (T, B, ·) by name."""
    rows, columns = weight.shape[0] // blocks, weight.shape[1]
    there = sum(run.count for run in its_runs if not run.adds)
    grad = torch.empty_like(weight) if there == blocks else torch.zeros_like(weight)
    for run in its_runs:
        # Kept arrays may have the working dtype.
        left, right = (arrays[each.array].flatten(0, 1).to(weight.dtype) for each in (run.d, run.operand))
        left = left[:, run.d.column * rows :]
        right = right[:, run.operand.column * columns * run.heads :]
        for begin, count, of_block, of_operand in run.parts(rows, columns):
            factors = left[:, of_block : of_block + count].T, right[:, of_operand : of_operand + columns]
            if run.adds:
                grad[begin : begin + count] += gemm(*factors)
            else:
                gemm(*factors, out=grad[begin : begin + count])
    return grad
