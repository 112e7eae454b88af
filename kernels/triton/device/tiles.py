"""Functions that kernels share: reading, writing and selecting tuples of tiles, and the boundaries of sequences.

A tile is (BLOCK_B, BLOCK_H): rows of a batch and their hidden units. Steps count in the order of travel: step i of a
direction that goes backwards is at time steps - 1 - i. Offsets are 64 bits wide, because T·B·G·H can exceed 2^31.
"""

import triton
import triton.language as tl


@triton.jit
def place_of_tile(
    first_row, stop, first_unit, batch, size, direction, directions: tl.constexpr,
    BLOCK_B: tl.constexpr, BLOCK_H: tl.constexpr,
):  # fmt: skip
    """A tile's rows and units, its masks and its offsets.

    Returns the rows; the units; the mask of rows before ``stop``; the mask of elements that exist. Then come the
    offsets in a state of (S, D, B, H), and the distance from one state to the next. The last are offsets in a direction
    of (D, H), the same for every row.
    """
    rows = first_row.to(tl.int64) + tl.arange(0, BLOCK_B)[:, None]
    units = first_unit + tl.arange(0, BLOCK_H)[None, :]
    present = rows < stop
    at, plane = (direction * batch + rows) * size + units, batch.to(tl.int64) * (directions * size)
    return rows, units, present, present & (units < size), at, plane, rows * 0 + units


@triton.jit
def tile_of_step(
    batch,
    size,
    direction,
    directions: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_H: tl.constexpr,
    DIVISOR: tl.constexpr,
):
    """The number of units, and the tile of a program of a step's kernel: `place_of_tile`.

    The grid's first axis has the tiles of the batch, the second the tiles of units.
    """
    size = size // DIVISOR * DIVISOR  # the same value; tells the compiler that DIVISOR divides it, for wide loads
    first_row, first_unit = tl.program_id(0) * BLOCK_B, tl.program_id(1) * BLOCK_H
    rows, units, present, inside, at, plane, everywhere = place_of_tile(
        first_row, batch, first_unit, batch, size, direction, directions, BLOCK_B, BLOCK_H
    )
    return size, rows, units, present, inside, at, plane, everywhere


@triton.jit
def tile_of_sequence(
    start, stop, batch, size, direction, directions: tl.constexpr,
    BLOCK_B: tl.constexpr, BLOCK_H: tl.constexpr, DIVISOR: tl.constexpr,
):  # fmt: skip
    """The tile of a program of a kernel for all steps: its group of programs that meet, its first row, the number of
    units, and `place_of_tile`.

    The grid's first axis has the tiles of units, the second the tiles of the sequences from ``start`` to ``stop``.
    """
    size = size // DIVISOR * DIVISOR  # the same value; tells the compiler that DIVISOR divides it, for wide loads
    first_row, first_unit = start + tl.program_id(1) * BLOCK_B, tl.program_id(0) * BLOCK_H
    group = (start // BLOCK_B + tl.program_id(1)) * directions + direction
    rows, units, present, inside, at, plane, everywhere = place_of_tile(
        first_row, stop, first_unit, batch, size, direction, directions, BLOCK_B, BLOCK_H
    )
    return group, first_row, size, rows, units, present, inside, at, plane, everywhere


@triton.jit
def load(base, count: tl.constexpr, stride, at, inside, dtype: tl.constexpr):
    """Load ``count`` tiles, ``stride`` elements apart."""
    tiles = ()
    for k in tl.static_range(count):
        tiles = tiles + (tl.load(base + k * stride + at, inside, other=0.0).to(dtype),)
    return tiles


@triton.jit
def load_each(bases, at, inside, dtype: tl.constexpr):
    """Load a tile of each tensor in a tuple, which may be empty."""
    tiles = ()
    for k in tl.static_range(len(bases)):
        tiles = tiles + (tl.load(bases[k] + at, inside, other=0.0).to(dtype),)
    return tiles


@triton.jit
def load_states(bases, count: tl.constexpr, at, inside, dtype: tl.constexpr):
    """Load a tile of each of ``count`` states; None means zeros."""
    if bases is not None:
        return load_each(bases, at, inside, dtype)
    else:
        tiles = ()
        for _ in tl.static_range(count):
            tiles = tiles + (tl.zeros(inside.shape, dtype),)
        return tiles


@triton.jit
def store_each(bases, tiles, at, inside):
    for k in tl.static_range(len(tiles)):
        tl.store(bases[k] + at, tiles[k], inside)


@triton.jit
def store(base, tiles, stride, at, inside):
    for k in tl.static_range(len(tiles)):
        tl.store(base + k * stride + at, tiles[k], inside)


@triton.jit
def store_some(base, tiles, slots: tl.constexpr, stride, at, inside):
    """Store each tile in its slot. A tile with slot -1 is not stored."""
    for k in tl.static_range(len(slots)):
        if slots[k] >= 0:
            tl.store(base + slots[k] * stride + at, tiles[k], inside)


@triton.jit
def accumulate(base, tiles, stride, at, inside):
    """Add tiles to stored values. Each element belongs to one program, so atomics are not needed."""
    for k in tl.static_range(len(tiles)):
        pointers = base + k * stride + at
        tl.store(pointers, tl.load(pointers, inside, other=0.0) + tiles[k], inside)


@triton.jit
def add(a, b):
    """Sums of tiles. Where ``a`` is longer than ``b``, its last tiles stay as they are."""
    sums = ()
    for k in tl.static_range(len(a)):
        if k < len(b):
            sums = sums + (a[k] + b[k],)
        else:
            sums = sums + (a[k],)
    return sums


@triton.jit
def where(condition, a, b):
    chosen = ()
    for k in tl.static_range(len(a)):
        chosen = chosen + (tl.where(condition, a[k], b[k]),)
    return chosen


@triton.jit
def where_or_zero(condition, a, first: tl.constexpr = 0):
    """Zeros where the condition does not hold, except in the tiles before ``first``."""
    chosen = ()
    for k in tl.static_range(len(a)):
        if k < first:
            chosen = chosen + (a[k],)
        else:
            chosen = chosen + (tl.where(condition, a[k], 0.0),)
    return chosen


@triton.jit
def time(i, steps, backwards):
    """The times of step i and of step i - 1."""
    t = tl.where(backwards, steps - 1 - i, i)
    earlier = tl.where(backwards, t + 1, t - 1)
    return t.to(tl.int64), earlier.to(tl.int64)


@triton.jit
def place_in_window(i, window, steps, backwards):
    """The index of step i in memory for a window of steps, which lie in the order of time."""
    first = i // window * window
    last = tl.minimum(first + window, steps) - 1
    return tl.where(backwards, last - i, i - first).to(tl.int64)


@triton.jit
def is_valid(lengths, t, rows, present):
    """(BLOCK_B, 1): whether time t lies within the sequence."""
    return t < tl.load(lengths + rows, present, other=0)


@triton.jit
def is_boundary(reset, lengths, i, steps, batch, rows, present, backwards):
    """(BLOCK_B, 1): whether the states are reset between steps i - 1 and i.

    ``reset[t]`` is a boundary between times t - 1 and t. A direction that goes backwards meets it before time t - 1.
    Flags past a sequence's length lie in padding and are ignored.
    """
    mark = tl.where(backwards, steps - i, i)
    # `rows * 0` makes the comparison a tile: `&` of a tile and a number is no mask in the interpreter of Triton 3.9.
    exists = present & (rows * 0 + tl.maximum(i, mark) < steps)
    flag = tl.load(reset + mark.to(tl.int64) * batch + rows, exists, other=0) != 0
    if lengths is not None:
        flag = flag & is_valid(lengths, mark, rows, present)
    return flag


@triton.jit
def states_around(
    i, window, before, first, after, result, reset_states, lengths, reset, steps, batch, size, rows, units, present,
    kept: tl.constexpr, previous: tl.constexpr, next: tl.constexpr,
    directions: tl.constexpr, direction, backwards, work: tl.constexpr,
):  # fmt: skip
    """Load the states before and after step i that ``previous`` and ``next`` flag, from what forward kept.

    result (T, B, D·H) is the hidden state after each step; ``after`` has all other states, in the slots ``kept``.
    first, a tensor (D, B, H) per state, has the states before all steps, None for zeros; reset_states, likewise, the
    states that a boundary sets. before has the hidden state before each step, if forward stored it: for all
    steps or, with ``window``, for the window's.
    """
    t, earlier = time(i, steps, backwards)
    place = ((t * batch + rows) * directions + direction) * size + units
    place_before = ((earlier * batch + rows) * directions + direction) * size + units
    at, plane = (direction * batch + rows) * size + units, batch.to(tl.int64) * (directions * size)
    inside = present & (units < size)
    s = ()
    n = ()
    for k in tl.static_range(len(kept)):
        old = tl.zeros(inside.shape, work)
        new = tl.zeros(inside.shape, work)
        if previous[k]:
            if k == 0 and before is not None:
                held = place
                if window is not None:
                    moment = place_in_window(i, window, steps, backwards)
                    held = ((moment * batch + rows) * directions + direction) * size + units
                old = tl.load(before + held, inside, other=0.0).to(work)
            else:
                if i == 0:
                    if first is not None:
                        old = tl.load(first[k] + at, inside, other=0.0).to(work)
                elif k == 0:
                    old = tl.load(result + place_before, inside, other=0.0).to(work)
                else:
                    old = tl.load(after + kept[k] * (steps * plane) + place_before, inside, other=0.0).to(work)
                if reset is not None:
                    flag = is_boundary(reset, lengths, i, steps, batch, rows, present, backwards)
                    old = tl.where(flag, tl.load(reset_states[k] + at, inside, other=0.0).to(work), old)
        if next[k]:
            if k == 0:
                new = tl.load(result + place, inside, other=0.0).to(work)
            else:
                new = tl.load(after + kept[k] * (steps * plane) + place, inside, other=0.0).to(work)
        s = s + (old,)
        n = n + (new,)
    return s, n


@triton.jit
def product_of_rows(
    h, weight, count: tl.constexpr, size, depth, rows, units, present, work: tl.constexpr, precision: tl.constexpr,
    BLOCK_B: tl.constexpr, BLOCK_H: tl.constexpr, WIDTH: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """h Wᵀ for the units of each of ``count`` gates, from h (B, depth) and W (count·H, depth): tiles (BLOCK_B,
    BLOCK_H).

    The depth is cut into pieces of WIDTH. `tl.dot` sums them, or, without DOT, products are added element by element
    and summed across at the end. That is for tiles of fewer rows than tensor cores take, and for precisions without
    tensor cores.
    """
    columns = tl.trans(units)
    sums = ()
    for _ in tl.static_range(count):
        if DOT:
            sums = sums + (tl.zeros((BLOCK_B, BLOCK_H), work),)
        else:
            sums = sums + (tl.zeros((BLOCK_B, BLOCK_H, WIDTH), work),)
    for first in range(0, depth, WIDTH):
        across = first + tl.arange(0, WIDTH)[None, :]
        read = tl.load(h + rows * depth + across, present & (across < depth), other=0.0)
        added = ()
        for k in tl.static_range(count):
            row_of_weight = (k * size + columns).to(tl.int64) * depth
            w = tl.load(weight + row_of_weight + across, (columns < size) & (across < depth), other=0.0)
            if DOT:
                added = added + (tl.dot(read, tl.trans(w), sums[k], input_precision=precision, out_dtype=work),)
            else:
                added = added + (sums[k] + read.to(work)[:, None, :] * w.to(work)[None, :, :],)
        sums = added
    products = sums
    if not DOT:
        products = ()
        for k in tl.static_range(count):
            products = products + (tl.sum(sums[k], 2),)
    return products
