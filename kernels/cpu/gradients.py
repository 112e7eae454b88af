"""Weights' gradients: large products over all steps, after backward has left what they multiply."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .linear import gemm


class Columns(NamedTuple):
    """A column of an array over all steps: as wide as a row block of the weight, or as what the weight multiplies."""

    array: str
    column: int


class Run(NamedTuple):
    """So many row blocks of a weight, whose gradient is one product, or one of each head: of the row blocks' gradients
    ``d``, which backward leaves, and of the ``operand`` that they multiply."""

    weight: str
    first: int
    count: int
    heads: int
    d: Columns
    operand: Columns
    adds: bool = False
    """Whether there is a gradient of these row blocks already."""

    def parts(self, rows: int, columns: int) -> Iterator[tuple[int, int, int, int]]:
        """The products of a weight of ``rows`` for a row block and so many columns: where in the weight the result
        begins and how many rows it has; where in the row block and in the operand its factors begin."""
        size = rows // self.heads
        for head in range(self.heads):
            yield self.first * rows + head * size, self.count * size, head * size, head * columns


def runs(terms: Iterable[Run]) -> list[Run]:
    """As few as possible: row blocks one after the other in one product, where their gradients lie side by side."""
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
    """That of a weight of so many row blocks, from arrays (T, B, ·) by name."""
    rows, columns = weight.shape[0] // blocks, weight.shape[1]
    there = sum(run.count for run in its_runs if not run.adds)
    grad = torch.empty_like(weight) if there == blocks else torch.zeros_like(weight)
    for run in its_runs:
        # What is kept may be of the dtype that is computed in.
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
