"""Recurrent weights that stay on the chip for a whole sequence, and the products with them.

A program holds what its own units need of every gate's weights. The dimension summed over, at each gate padded to
WIDTH, is cut into CHUNKS, whose sizes are powers of two as tiles' must be: any number of units, little over. Each chunk
is cut again into SPLIT parts, one for each warp: a tile of a few rows and units is too small to divide among warps any
other way, and undivided every warp would read all the weights. So tiles have three dimensions, (SPLIT, ·, ·), and
products are summed over the first. Divided so, the compiler moves weights on into registers, as far as there are any.
"""

import triton
import triton.language as tl


@triton.jit
def hold(
    base, planes: tl.constexpr, size, along, across, units,
    CHUNKS: tl.constexpr, WIDTH: tl.constexpr, SPLIT: tl.constexpr, precision: tl.constexpr,
):  # fmt: skip
    """Weights (…, size, size) as (SPLIT, chunk / SPLIT, UNITS) tiles, chunk by chunk and in each plane by plane.

    ``along`` and ``across`` are strides over what is summed and over ``units``; past WIDTH the sum goes on in the next
    plane. For tf32x3 the weights' second halves follow, in the same order.
    """
    tiles = ()
    rest = ()
    before = 0
    n = units[:, None, :]
    for c in tl.static_range(len(CHUNKS)):
        k = _places(before, CHUNKS[c], SPLIT)[:, :, None]
        before += CHUNKS[c]
        for plane in tl.static_range(planes):
            at = (plane + k // WIDTH).to(tl.int64) * size * size + (k % WIDTH) * along + n * across
            tile = tl.load(base + at, (k % WIDTH < size) & (n < size), other=0.0)
            if precision == "tf32x3":
                tile, low = _halves(tile)
                rest = rest + (low,)
            tiles = tiles + (tile,)
    return tiles + rest


@triton.jit
def read(base, pitch, ROWS: tl.constexpr, CHUNKS: tl.constexpr, SPLIT: tl.constexpr):
    """What the weights are multiplied with, rows of ``pitch`` as other programs have written them: a tile a chunk."""
    loaded = ()
    before = 0
    for c in tl.static_range(len(CHUNKS)):
        at = tl.arange(0, ROWS)[:, None, None] * pitch + _places(before, CHUNKS[c], SPLIT)[None, :, :]
        before += CHUNKS[c]
        # From the L2 cache, where they meet; what a multiprocessor's own has kept may be old.
        loaded = loaded + (tl.load(base + at, cache_modifier=".cg"),)
    tiles = ()
    for c in tl.static_range(len(CHUNKS)):
        tiles = tiles + (tl.permute(loaded[c], (1, 0, 2)),)
    return tiles


@triton.jit
def own(values, inside, dtype: tl.constexpr, SPLIT: tl.constexpr):
    """The same in a program that has all units, and need not read what it computed: each of ``values`` is a chunk."""
    tiles = ()
    for c in tl.static_range(len(values)):
        # Outside, where no weights are, a cell may have computed NaN.
        value = tl.where(inside, values[c], 0.0).to(dtype)
        parts = tl.reshape(value, (value.shape[0], SPLIT, value.shape[1] // SPLIT))
        tiles = tiles + (tl.permute(parts, (1, 0, 2)),)
    return tiles


@triton.jit
def product(tiles, weights, planes: tl.constexpr, precision: tl.constexpr, work: tl.constexpr):
    """Tiles times weights, summed over chunks: (ROWS, UNITS) for every plane."""
    second: tl.constexpr = len(weights) // 2 if precision == "tf32x3" else 0
    sums = ()
    for plane in tl.static_range(planes):
        if tiles[0].shape[0] == 1:
            total = tl.zeros((tiles[0].shape[1], weights[0].shape[2]), work)
        else:
            total = tl.zeros((tiles[0].shape[0], tiles[0].shape[1], weights[0].shape[2]), work)
        for c in tl.static_range(len(tiles)):
            high, low = weights[c * planes + plane], weights[second + c * planes + plane]
            total = _add_product(tiles[c], high, low, total, precision)
        if tiles[0].shape[0] > 1:
            total = _sum_of_parts(total)
        sums = sums + (total,)
    return sums


@triton.jit
def _add_product(a, b, low, total, precision: tl.constexpr):
    if a.shape[0] == 1:
        a = tl.reshape(a, (a.shape[1], a.shape[2]))
        b = tl.reshape(b, (b.shape[1], b.shape[2]))
        low = tl.reshape(low, (low.shape[1], low.shape[2]))
    if precision == "tf32x3":
        a, rest = _halves(a)
        total = tl.dot(rest, b, total, input_precision="tf32", out_dtype=total.dtype)
        total = tl.dot(a, low, total, input_precision="tf32", out_dtype=total.dtype)
        return tl.dot(a, b, total, input_precision="tf32", out_dtype=total.dtype)
    return tl.dot(a, b, total, input_precision=precision, out_dtype=total.dtype)


@triton.jit
def _sum_of_parts(x):
    """(SPLIT, ROWS, UNITS) → (ROWS, UNITS).

    By halves, each a `tl.split`: the compiler then divides the elements among the warps and adds in registers. With
    `tl.sum` every warp would have all of the result, and compute all of the cell.
    """
    x = tl.permute(x, (1, 2, 0))
    for _ in tl.static_range(5):
        if x.shape[2] > 1:
            a, b = tl.split(tl.reshape(x, (x.shape[0], x.shape[1], x.shape[2] // 2, 2)))
            x = a + b
    return tl.reshape(x, (x.shape[0], x.shape[1]))


@triton.jit
def _halves(x):
    """float32 as a number that tensor cores take whole, and the rest."""
    high = (x.to(tl.int32, bitcast=True) & -0x2000).to(tl.float32, bitcast=True)
    return high, x - high


@triton.jit
def _places(before, chunk: tl.constexpr, SPLIT: tl.constexpr):
    """(SPLIT, chunk / SPLIT), of a chunk with so much before it."""
    part: tl.constexpr = chunk // SPLIT
    return before + tl.arange(0, SPLIT)[:, None] * part + tl.arange(0, part)[None, :]
