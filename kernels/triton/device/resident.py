"""Recurrent weights that stay on the chip for a whole sequence, and the products with them.

A program holds the part of every gate's weights that its own units need. The dimension summed over, padded to WIDTH at
each gate, is cut into CHUNKS. Their sizes are powers of two, as Triton's tile sizes must be; so any number of units
fits with little padding. Each chunk is cut again into SPLIT parts, one for each warp. A tile of a few rows and units is
too small to divide among warps any other way. Undivided, every warp would read all the weights. So tiles have three
dimensions, (SPLIT, ·, ·), and products are summed over the first.

Triton has no option for where weights stay, so the form of the time loop decides it. Weights that a `while` loop reads
are moved out of the loop into registers by the compiler. For a `for` loop the compiler keeps the tiles in shared memory
and reads them again in each iteration, to save registers. So each time loop is a `for` inside a `while`. The `for` runs
all steps where weights are in shared memory. Else it runs one step, and the compiler removes it.
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
    """Load weights (…, size, size) as (SPLIT, chunk / SPLIT, BLOCK_H) tiles, ordered by chunk, then by plane.

    ``along`` is the stride over the dimension summed over, ``across`` the stride over ``units``. The index WIDTH is
    the first unit of the next plane. For tf32x3 the low halves of the weights follow, in the same order.
    """
    tiles = ()
    rest = ()
    before = 0
    n = tl.trans(units)[None, :, :]  # in the order of memory: the compiler then stores each tile once it is read
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
        # The barrier lets only one chunk at a time be in registers, on its way to shared memory.
        tl.debug_barrier()
    return tiles + rest


@triton.jit
def product(
    base, pitch, weights, counters, meetings, patience,
    planes: tl.constexpr, precision: tl.constexpr, work: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_H: tl.constexpr,
    CHUNKS: tl.constexpr, AHEAD: tl.constexpr, WIDTH: tl.constexpr, SPLIT: tl.constexpr, FLAGS: tl.constexpr,
):  # fmt: skip
    """Multiply what other programs have written, `rounded`, by the weights: sums (BLOCK_B, BLOCK_H) for every plane,
    and the patience left.

    Rows at ``base`` lie ``pitch`` apart. The program waits until all programs have met ``meetings`` times since the
    first step. It reads ``AHEAD`` chunks at a time.
    """
    sums = ()
    tiles = ()
    before = 0
    for c in tl.static_range(len(CHUNKS)):
        if c % AHEAD == 0:
            patience = _wait(counters, meetings, patience, before, c, BLOCK_H, CHUNKS, AHEAD, WIDTH, FLAGS)
            tiles = _read(base, pitch, before, c, BLOCK_B, CHUNKS, SPLIT, AHEAD)
        before += CHUNKS[c]
        sums = _add_products(tl.permute(tiles[c % AHEAD], (1, 0, 2)), weights, c, sums, planes, precision, work)
    return _sums_of_parts(sums), patience


@triton.jit
def product_of_rows(
    base, first_row, stop, pitch, size, weights, planes: tl.constexpr, precision: tl.constexpr, work: tl.constexpr,
    BLOCK_B: tl.constexpr, CHUNKS: tl.constexpr, WIDTH: tl.constexpr, SPLIT: tl.constexpr,
):  # fmt: skip
    """As `product`, without a wait, for rows ``first_row`` to ``stop`` of a sequence. They lie ``pitch`` apart, and
    each gate's ``size`` units have no padding. A chunk never spans two gates."""
    sums = ()
    before = 0
    rows = first_row.to(tl.int64) + tl.arange(0, BLOCK_B)[:, None, None]
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
    """As `product`, in a program that has all units and need not read them: each of its own ``values`` is a chunk."""
    sums = ()
    for c in tl.static_range(len(values)):
        # A cell may compute NaN in the tile's padding, where the weights are 0.
        value = rounded(tl.where(inside, values[c], 0.0).to(dtype), precision)
        parts = tl.reshape(value, (value.shape[0], SPLIT, value.shape[1] // SPLIT))
        sums = _add_products(tl.permute(parts, (1, 0, 2)), weights, c, sums, planes, precision, work)
    return _sums_of_parts(sums)


@triton.jit
def rounded(x, precision: tl.constexpr):
    """An operand, rounded as tensor cores need it. They drop 13 bits of a float32, which would make every number a
    little too small. So an operand is rounded where it is made. The interpreter multiplies in full float32."""
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
    BLOCK_H: tl.constexpr, CHUNKS: tl.constexpr, AHEAD: tl.constexpr, WIDTH: tl.constexpr, FLAGS: tl.constexpr,
):  # fmt: skip
    """Wait until the chunks that `_read` reads next are written. At a barrier, the wait for the first chunk covers all
    chunks."""
    if FLAGS:
        after = before
        for c in tl.static_range(first, min(first + AHEAD, len(CHUNKS))):
            after += CHUNKS[c]
        if before < WIDTH:  # later planes have the same units, waited for already
            program = before // BLOCK_H
            stop = tl.minimum(tl.cdiv(tl.minimum(after, WIDTH), BLOCK_H), tl.num_programs(0))
            patience = barrier.wait(counters + program * barrier.APART, stop - program, meetings, patience)
    elif first == 0:
        patience = barrier.wait(counters, 1, meetings * tl.num_programs(0), patience)
    return patience


@triton.jit
def _read(
    base, pitch, before, first: tl.constexpr,
    BLOCK_B: tl.constexpr, CHUNKS: tl.constexpr, SPLIT: tl.constexpr, AHEAD: tl.constexpr,
):  # fmt: skip
    """Load ``AHEAD`` chunks from chunk ``first`` on, or as many as remain."""
    loaded = ()
    for c in tl.static_range(first, min(first + AHEAD, len(CHUNKS))):
        at = tl.arange(0, BLOCK_B)[:, None, None] * pitch + _places(0, CHUNKS[c], SPLIT)[None, :, :]
        # From the L2 cache, which all programs share: a multiprocessor's L1 cache may hold an old value.
        loaded = loaded + (tl.load(base + before + at, cache_modifier=".cg"),)
        before += CHUNKS[c]
    return loaded


@triton.jit
def _add_products(
    tile, weights, chunk: tl.constexpr, sums, planes: tl.constexpr, precision: tl.constexpr, work: tl.constexpr
):
    """Add a tile times each plane's weights of a chunk to ``sums``, which is empty before the first chunk."""
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
    """Sum each (SPLIT, BLOCK_B, BLOCK_H) to (BLOCK_B, BLOCK_H). With one part the sums have that shape already."""
    totals = ()
    for k in tl.static_range(len(sums)):
        if len(sums[k].shape) == 2:
            totals = totals + (sums[k],)
        else:
            totals = totals + (_sum_of_parts(sums[k]),)
    return totals


@triton.jit
def _sum_of_parts(x):
    """(SPLIT, BLOCK_B, BLOCK_H) → (BLOCK_B, BLOCK_H).

    Each round halves the parts by a `tl.split`, so that the compiler divides the elements among the warps and adds in
    registers. After a `tl.sum` every warp would have the whole result, and compute the whole cell.
    """
    x = tl.permute(x, (1, 2, 0))
    for _ in tl.static_range(5):
        if x.shape[2] > 1:
            a, b = tl.split(tl.reshape(x, (x.shape[0], x.shape[1], x.shape[2] // 2, 2)))
            x = a + b
    return tl.reshape(x, (x.shape[0], x.shape[1]))


@triton.jit
def _halves(x):
    """Split float32 into a number that TF32 tensor cores take without loss, and the rest."""
    high = (x.to(tl.int32, bitcast=True) & -0x2000).to(tl.float32, bitcast=True)
    return high, x - high


@triton.jit
def _places(before, chunk: tl.constexpr, SPLIT: tl.constexpr):
    """The indices (SPLIT, chunk / SPLIT) of a chunk that ``before`` indices precede."""
    part: tl.constexpr = chunk // SPLIT
    return before + tl.arange(0, SPLIT)[:, None] * part + tl.arange(0, part)[None, :]
