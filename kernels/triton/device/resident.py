"""Recurrent weights that stay on the chip for a whole sequence, and the products with them.

A program holds what its own units need of every gate's weights. The dimension summed over, at each gate padded to
WIDTH, is cut into CHUNKS, whose sizes are powers of two as tiles' must be: any number of units, little over. Each chunk
is cut again into SPLIT parts, one for each warp: a tile of a few rows and units is too small to divide among warps any
other way, and undivided every warp would read all the weights. So tiles have three dimensions, (SPLIT, ·, ·), and
products are summed over the first.

Where weights stay is the loop's to say, for Triton has no word for it. What a `while` reads, the compiler moves out of
it into registers. Of what a `for` reads it has shared memory hold the tiles, and the loop read them each time again, so
as not to run out of registers. So there is a `for` in the `while`, of all steps or of one, which is then no loop.
"""

import triton
import triton.language as tl

from .. import interpreted
from . import barrier

INTERPRETED = tl.constexpr(interpreted())


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
    n = tl.trans(units)[None, :, :]  # as rows of weights lie in memory: the compiler then stores a tile once it is read
    for c in tl.static_range(len(CHUNKS)):
        k = _places(before, CHUNKS[c], SPLIT)[:, None, :]
        before += CHUNKS[c]
        for plane in tl.static_range(planes):
            at = (plane + k // WIDTH).to(tl.int64) * size * size + (k % WIDTH) * along + n * across
            tile = tl.permute(tl.load(base + at, (k % WIDTH < size) & (n < size), other=0.0), (0, 2, 1))
            if precision == "tf32x3":
                tile, low = _halves(tile)
                rest = rest + (low,)
            tiles = tiles + (rounded(tile, precision),)
        # No more than a chunk is on its way to shared memory, in registers, at a time.
        tl.debug_barrier()
    return tiles + rest


@triton.jit
def product(
    base, pitch, weights, counters, meetings, patience,
    planes: tl.constexpr, precision: tl.constexpr, work: tl.constexpr, ROWS: tl.constexpr, UNITS: tl.constexpr,
    CHUNKS: tl.constexpr, AHEAD: tl.constexpr, WIDTH: tl.constexpr, SPLIT: tl.constexpr, FLAGS: tl.constexpr,
):  # fmt: skip
    """What other programs have written, `rounded`, rows of ``pitch``, times weights, summed: (ROWS, UNITS) for every
    plane. And the patience that is left of waiting for it: for as many ``meetings``, since the first step.

    So many chunks are on their way at a time as ``AHEAD`` says.
    """
    sums = ()
    tiles = ()
    before = 0
    for c in tl.static_range(len(CHUNKS)):
        if c % AHEAD == 0:
            patience = _wait(counters, meetings, patience, before, c, UNITS, CHUNKS, AHEAD, WIDTH, FLAGS)
            tiles = _read(base, pitch, before, c, ROWS, CHUNKS, SPLIT, AHEAD)
        before += CHUNKS[c]
        sums = _add_products(tl.permute(tiles[c % AHEAD], (1, 0, 2)), weights, c, sums, planes, precision, work)
    return _sums_of_parts(sums), patience


@triton.jit
def product_of_rows(
    base, first_row, stop, pitch, size, weights, planes: tl.constexpr, precision: tl.constexpr, work: tl.constexpr,
    ROWS: tl.constexpr, CHUNKS: tl.constexpr, WIDTH: tl.constexpr, SPLIT: tl.constexpr,
):  # fmt: skip
    """The same of rows ``first_row`` to ``stop`` as a sequence has them, ``pitch`` apart and with no room after each
    gate's ``size`` units; no chunk has units of two gates."""
    sums = ()
    before = 0
    rows = first_row.to(tl.int64) + tl.arange(0, ROWS)[:, None, None]
    for c in tl.static_range(len(CHUNKS)):
        k = _places(before % WIDTH, CHUNKS[c], SPLIT)[None, :, :]
        at = rows * pitch + before // WIDTH * size + k
        before += CHUNKS[c]
        tile = tl.load(base + at, (rows < stop) & (k < size), other=0.0, cache_modifier=".cg")
        sums = _add_products(tl.permute(rounded(tile, precision), (1, 0, 2)), weights, c, sums, planes, precision, work)
    return _sums_of_parts(sums)


@triton.jit
def own_product(
    values, inside, weights, planes: tl.constexpr, precision: tl.constexpr, work: tl.constexpr,
    dtype: tl.constexpr, SPLIT: tl.constexpr,
):  # fmt: skip
    """The same in a program that has all units, and need not read what it computed: each of ``values`` is a chunk."""
    sums = ()
    for c in tl.static_range(len(values)):
        # Outside, where no weights are, a cell may have computed NaN.
        value = rounded(tl.where(inside, values[c], 0.0).to(dtype), precision)
        parts = tl.reshape(value, (value.shape[0], SPLIT, value.shape[1] // SPLIT))
        sums = _add_products(tl.permute(parts, (1, 0, 2)), weights, c, sums, planes, precision, work)
    return _sums_of_parts(sums)


@triton.jit
def rounded(x, precision: tl.constexpr):
    """What a product is to read, as tensor cores take it: of float32 they drop 13 bits, which would make every number a
    little too small, so it is rounded where it is made. The interpreter's products are float32's own."""
    if precision == "tf32" and not INTERPRETED:
        bits = tl.inline_asm_elementwise(
            "cvt.rna.tf32.f32 $0, $1;", "=r,f", [x.to(tl.float32)], dtype=tl.int32, is_pure=True, pack=1
        )
        return bits.to(tl.float32, bitcast=True)
    else:
        return x


@triton.jit
def _wait(
    counters, meetings, patience, before, first: tl.constexpr,
    UNITS: tl.constexpr, CHUNKS: tl.constexpr, AHEAD: tl.constexpr, WIDTH: tl.constexpr, FLAGS: tl.constexpr,
):  # fmt: skip
    """Until the chunks that `_read` then reads are written; at a barrier all are with the first."""
    if FLAGS:
        after = before
        for c in tl.static_range(first, min(first + AHEAD, len(CHUNKS))):
            after += CHUNKS[c]
        if before < WIDTH:  # in the next plane are the same units once more
            program = before // UNITS
            stop = tl.minimum(tl.cdiv(tl.minimum(after, WIDTH), UNITS), tl.num_programs(0))
            patience = barrier.wait(counters + program * barrier.APART, stop - program, meetings, patience)
    elif first == 0:
        patience = barrier.wait(counters, 1, meetings * tl.num_programs(0), patience)
    return patience


@triton.jit
def _read(
    base, pitch, before, first: tl.constexpr,
    ROWS: tl.constexpr, CHUNKS: tl.constexpr, SPLIT: tl.constexpr, AHEAD: tl.constexpr,
):  # fmt: skip
    """The chunks from ``first`` on, as many as there are of ``AHEAD``."""
    loaded = ()
    for c in tl.static_range(first, min(first + AHEAD, len(CHUNKS))):
        at = tl.arange(0, ROWS)[:, None, None] * pitch + _places(0, CHUNKS[c], SPLIT)[None, :, :]
        # From the L2 cache, where they meet; what a multiprocessor's own has kept may be old.
        loaded = loaded + (tl.load(base + before + at, cache_modifier=".cg"),)
        before += CHUNKS[c]
    return loaded


@triton.jit
def _add_products(
    tile, weights, chunk: tl.constexpr, sums, planes: tl.constexpr, precision: tl.constexpr, work: tl.constexpr
):
    """A tile times each plane's weights of a chunk, added to ``sums``, of which there are none before the first."""
    second: tl.constexpr = len(weights) // 2 if precision == "tf32x3" else 0
    added = ()
    for plane in tl.static_range(planes):
        high, low = weights[chunk * planes + plane], weights[second + chunk * planes + plane]
        if len(sums) > 0:
            total = sums[plane]
        elif tile.shape[0] == 1:
            total = tl.zeros((tile.shape[1], high.shape[2]), work)
        else:
            total = tl.zeros((tile.shape[0], tile.shape[1], high.shape[2]), work)
        added = added + (_add_product(tile, high, low, total, precision),)
    return added


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
def _sums_of_parts(sums):
    """Each (SPLIT, ROWS, UNITS) → (ROWS, UNITS), as they are where there is but one part."""
    totals = ()
    for k in tl.static_range(len(sums)):
        if len(sums[k].shape) == 2:
            totals = totals + (sums[k],)
        else:
            totals = totals + (_sum_of_parts(sums[k]),)
    return totals


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
