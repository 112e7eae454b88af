"""Reductions over all units of a row: Triton's form of those in seqcells/cells/units.py.

Where each program has only some of a row's units, it writes partial results to memory (2 · numbers, programs, BLOCK_B).
Every program then merges all partial results: variances from (mean, sum of squares about it), logsumexps from (maximum,
sum).
"""

import triton
import triton.language as tl

from . import barrier


@triton.jit
def reduced(level: tl.constexpr, kinds: tl.constexpr, values, row):
    """Reduce each of ``values`` over all units of a row, by the reduction at its place in ``kinds``: (BLOCK_B, 1) each.

    Args:
        level: how many rounds of reductions came before this one in the stage.
        row: the mask of the tile's units, and the number of units. If the tile lacks some units, six more entries
            follow. They are memory for the stage's first round, the distance to the next round's memory, and the
            counter where programs meet. Then come how often programs met before the stage, the patience, and (1,
            BLOCKS), a number for each program.
    """
    if len(row) == 2:
        numbers = ()
        for k in tl.static_range(len(kinds)):
            numbers = numbers + (_reduced(kinds[k], values[k], row[0], row[1]),)
        return numbers
    else:
        return _met(kinds, values, row[0], row[1], row[2] + level * row[3], row[4], row[5] + level + 1, row[6], row[7])


@triton.jit
def _met(kinds: tl.constexpr, values, inside, size, memory, counter, meeting, patience, each):
    programs = tl.num_programs(0)
    BLOCKS: tl.constexpr = each.shape[1]  # noqa: N806
    BLOCK_B: tl.constexpr = inside.shape[0]  # noqa: N806, a constant of the kernel
    BLOCK_H: tl.constexpr = inside.shape[1]  # noqa: N806
    row = tl.arange(0, BLOCK_B)[:, None]
    count = tl.minimum(size - tl.program_id(0) * BLOCK_H, BLOCK_H)
    here = memory + tl.program_id(0) * BLOCK_B + row
    for k in tl.static_range(len(kinds)):
        one, other = _part(kinds[k], values[k], inside, count)
        tl.store(here + 2 * k * (BLOCKS * BLOCK_B), one)
        tl.store(here + (2 * k + 1) * (BLOCKS * BLOCK_B), other)
    barrier.arrive(counter)
    barrier.check_in_time(barrier.wait(counter, 1, meeting * programs, patience))
    there = (each < programs) & (row >= 0)
    counts = tl.maximum(tl.minimum(size - each * BLOCK_H, BLOCK_H), 0)
    numbers = ()
    for k in tl.static_range(len(kinds)):
        parts = memory + 2 * k * (BLOCKS * BLOCK_B) + each * BLOCK_B + row
        one = tl.load(parts, there, other=0.0, cache_modifier=".cg")
        other = tl.load(parts + BLOCKS * BLOCK_B, there, other=0.0, cache_modifier=".cg")
        numbers = numbers + (_merged(kinds[k], one, other, counts, there, size),)
    return numbers


@triton.jit
def _part(kind: tl.constexpr, value, inside, count):
    """Two partial results of each row of a tile. Only some reductions need the second."""
    if kind == "variance":
        mean = _sum(value, inside) / count
        apart = value - mean
        return mean, _sum(apart * apart, inside)
    elif kind == "logsumexp":
        largest = _max(value, inside)
        return largest, _sum(tl.exp(value - largest), inside)
    elif kind == "max":
        largest = _max(value, inside)
        return largest, largest
    else:
        total = _sum(value, inside)
        return total, total


@triton.jit
def _merged(kind: tl.constexpr, one, other, counts, there, size):
    if kind == "variance":
        mean = _sum(one * counts, there) / size
        apart = one - mean
        return (_sum(other, there) + _sum(apart * apart * counts, there)) / size
    elif kind == "logsumexp":
        largest = _max(one, there)
        return largest + tl.log(_sum(other * tl.exp(one - largest), there))
    else:
        return _reduced(kind, one, there, size)


@triton.jit
def _reduced(kind: tl.constexpr, value, inside, size):
    if kind == "sum":
        return _sum(value, inside)
    elif kind == "mean":
        return _sum(value, inside) / size
    elif kind == "variance":
        apart = value - _sum(value, inside) / size
        return _sum(apart * apart, inside) / size
    elif kind == "max":
        return _max(value, inside)
    else:
        tl.static_assert(kind == "logsumexp", "no such reduction")
        largest = _max(value, inside)
        return largest + tl.log(_sum(tl.exp(value - largest), inside))


@triton.jit
def _sum(value, inside):
    return tl.sum(tl.where(inside, value, 0.0), 1, keep_dims=True)


@triton.jit
def _max(value, inside):
    return tl.max(tl.where(inside, value, float("-inf")), 1, keep_dims=True)
