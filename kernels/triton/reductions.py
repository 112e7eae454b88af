"""What stages make of all units of a row: Triton's form of the reductions in seqcells/cells/units.py."""

import triton
import triton.language as tl


@triton.jit
def reduced(level: tl.constexpr, kinds: tl.constexpr, values, row):
    """A number of each sequence, (ROWS, 1), for each of ``kinds``: of all units of the value in its place.

    Args:
        level: how many rounds of reductions came before this one in the stage.
        row: which elements of a tile are units, and how many units there are.
    """
    numbers = ()
    for k in tl.static_range(len(kinds)):
        numbers = numbers + (_reduced(kinds[k], values[k], row[0], row[1]),)
    return numbers


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
