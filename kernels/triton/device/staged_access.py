"""How kernels read and write the values that the tables of cells that run by stages name; see `staged_tables`.

A place is a tuple of constants: kind, the array's index among the kernel's arrays, column, the array's number of
columns, heads. A kind is the array's axes, or one of

* ``"parts"``: operands and results of products, (D, heads, B, columns · H / heads), which for one head is (D, B,
  columns · H);
* ``"held"``: a value that the kernel holds in registers, at the index ``column``; ``"carried"``: a value carried in
  registers to the next step;
* ``"ring"``: the memory where programs exchange operands, see `staged_sequence`;
* ``"before"``: the state with the index ``column``, a step earlier in its history;
* ``"units"``: the number of units;
* ``"absent"``: no memory; the value is read as zero.

Tiles are (BLOCK_B, BLOCK_H). A tile has one row if its values are the same for all rows, and one unit if it has a
number per row.
"""

import triton
import triton.language as tl


@triton.jit
def loaded(
    places: tl.constexpr, arrays, first, i, t, earlier, rows, units, present, batch, size,
    directions: tl.constexpr, direction, work: tl.constexpr,
):  # fmt: skip
    """Load the values of some places at step i, which is time t. ``first`` has the states before all steps, (D, B, H)
    each."""
    tiles = ()
    for k in tl.static_range(len(places)):
        tile = _loaded(
            places[k], arrays, first, i, t, earlier, rows, units, present, batch, size,
            directions, direction, work,
        )  # fmt: skip
        tiles = tiles + (tile,)
    return tiles


@triton.jit
def completed(places: tl.constexpr, tiles, held):
    """The same tiles, with the values that are held in registers put in their places."""
    found = ()
    for k in tl.static_range(len(places)):
        if places[k][0] == "held":
            found = found + (held[places[k][2]],)
        else:
            found = found + (tiles[k],)
    return found


@triton.jit
def _loaded(
    place: tl.constexpr, arrays, first, i, t, earlier, rows, units, present, batch, size,
    directions: tl.constexpr, direction, work: tl.constexpr,
):  # fmt: skip
    if place[0] == "units":
        return tl.zeros((1, 1), work) + size
    elif place[0] == "absent" or place[0] == "held":
        return tl.zeros((1, 1), work)
    elif place[0] == "before":
        inside = present & (units < size)
        if i == 0:
            at = (direction * batch + rows) * size + units
            tile = tl.load(first[place[2]] + at, inside, other=0.0).to(work)
        else:
            at = ((earlier * batch + rows) * directions + direction) * size + units
            tile = tl.load(arrays[place[1]] + at, inside, other=0.0).to(work)
        return tile
    else:
        at = _at(place, t, rows, units, batch, size, directions, direction)
        return tl.load(arrays[place[1]] + at, _there(place, units, present, size), other=0.0).to(work)


@triton.jit
def write(
    places: tl.constexpr, adds: tl.constexpr, tiles, arrays, t, rows, units, present, batch, size,
    directions: tl.constexpr, direction,
):  # fmt: skip
    """Store tiles to their places in memory. Where ``adds`` is set, a tile is added to the stored values."""
    for k in tl.static_range(len(places)):
        if not (places[k][0] == "carried" or places[k][0] == "absent" or places[k][0] == "ring"):
            at = arrays[places[k][1]] + _at(places[k], t, rows, units, batch, size, directions, direction)
            there = _there(places[k], units, present, size)
            if places[k][0] == "TB" or places[k][0] == "B":
                there = there & (tl.min(units, 1, keep_dims=True) == 0)  # one of the programs that have it stores it
            if adds[k]:
                tl.store(at, tl.load(at, there, other=0.0) + tiles[k], there)
            else:
                tl.store(at, tiles[k], there)


@triton.jit
def carried_on(places: tl.constexpr, tiles):
    """Those results of a stage that pass to the next step."""
    states = ()
    for k in tl.static_range(len(places)):
        if places[k][0] == "carried":
            states = states + (tiles[k],)
    return states


@triton.jit
def _at(place: tl.constexpr, t, rows, units, batch, size, directions: tl.constexpr, direction):
    """The offsets of a place's elements from the beginning of its array."""
    kind: tl.constexpr = place[0]
    column: tl.constexpr = place[2]
    columns: tl.constexpr = place[3]
    heads: tl.constexpr = place[4]
    row = (t * batch + rows) * directions + direction
    beside = direction * batch + rows
    if kind == "TBH":
        return row * (columns * size) + (column * size + units)
    elif kind == "TB":
        return row * columns + column
    elif kind == "TH":
        return (t * directions + direction) * (columns * size) + (column * size + units)
    elif kind == "T":
        return tl.zeros((1, 1), tl.int64) + (t * directions + direction) * columns + column
    elif kind == "BH":
        return beside * (columns * size) + (column * size + units)
    elif kind == "B":
        return beside * columns + column
    elif kind == "H":
        return direction * (columns * size) + (column * size + units)
    elif kind == "parts":
        if heads == 1:
            return beside * (columns * size) + (column * size + units)
        else:
            of_head = size // heads
            beside = (direction * heads + units // of_head) * batch + rows
            return beside * (columns * of_head) + (column * of_head + units % of_head)
    else:
        return tl.zeros((1, 1), tl.int32) + (direction * columns + column)


@triton.jit
def _there(place: tl.constexpr, units, present, size):
    """The mask of a place's elements that exist."""
    kind: tl.constexpr = place[0]
    if kind == "TB" or kind == "B":
        return present
    elif kind == "H" or kind == "TH":
        return units < size
    elif kind == "" or kind == "T":
        return tl.zeros((1, 1), tl.int32) == 0
    else:
        return present & (units < size)
