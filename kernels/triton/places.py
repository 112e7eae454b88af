"""How kernels read and write what the tables of cells of several stages tell: `tables` has them in words.

A place is a tuple of constants: kind, the array's number among those that the kernel is given, column, the array's
number of columns, heads. Kinds are axes, and

* ``"parts"``: what products read and give, (D, heads, B, columns · H / heads), which is (D, B, columns · H) for one;
* ``"carried"``: of the column's state, in registers;
* ``"before"``: of the column's state in its history, a step earlier;
* ``"units"``: the number of units;
* ``"absent"``: nowhere; it is read as zero.

Tiles are (ROWS, UNITS), with one row where they are the same for all, and one unit where they are numbers of a row.
"""

import triton
import triton.language as tl


@triton.jit
def read(
    places: tl.constexpr, arrays, carried, first, i, t, earlier, rows, units, present, batch, size,
    directions: tl.constexpr, direction, work: tl.constexpr,
):  # fmt: skip
    """What is in some places in step i, at time t; ``first``: the states before all steps, (D, B, H) each."""
    tiles = ()
    for k in tl.static_range(len(places)):
        place: tl.constexpr = places[k]
        if place[0] == "carried":
            tile = carried[place[2]]
        elif place[0] == "units":
            tile = tl.zeros((1, 1), work) + size
        elif place[0] == "absent":
            tile = tl.zeros((1, 1), work)
        elif place[0] == "before":
            inside = present & (units < size)
            if i == 0:
                at = (direction * batch + rows) * size + units
                tile = tl.load(first[place[2]] + at, inside, other=0.0).to(work)
            else:
                at = ((earlier * batch + rows) * directions + direction) * size + units
                tile = tl.load(arrays[place[1]] + at, inside, other=0.0).to(work)
        else:
            at = _at(place, t, rows, units, batch, size, directions, direction)
            tile = tl.load(arrays[place[1]] + at, _there(place, units, present, size), other=0.0).to(work)
        tiles = tiles + (tile,)
    return tiles


@triton.jit
def write(
    places: tl.constexpr, adds: tl.constexpr, tiles, arrays, t, rows, units, present, batch, size,
    directions: tl.constexpr, direction,
):  # fmt: skip
    """Tiles to some places, but what is carried; those that ``adds`` names are added to what is there."""
    for k in tl.static_range(len(places)):
        place: tl.constexpr = places[k]
        if place[0] != "carried" and place[0] != "absent":
            at = arrays[place[1]] + _at(place, t, rows, units, batch, size, directions, direction)
            there = _there(place, units, present, size)
            if adds[k]:
                tl.store(at, tl.load(at, there, other=0.0) + tiles[k], there)
            else:
                tl.store(at, tiles[k], there)


@triton.jit
def carried_on(places: tl.constexpr, tiles):
    """Of what a stage returns that which passes to the next step."""
    states = ()
    for k in tl.static_range(len(places)):
        if places[k][0] == "carried":
            states = states + (tiles[k],)
    return states


@triton.jit
def _at(place: tl.constexpr, t, rows, units, batch, size, directions: tl.constexpr, direction):
    """Where a place's elements are from the beginning of its array."""
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
        return units[:, :1] * 0 + (direction * columns + column)


@triton.jit
def _there(place: tl.constexpr, units, present, size):
    """Which of a place's elements there are."""
    kind: tl.constexpr = place[0]
    if kind == "TB" or kind == "B":
        return present
    elif kind == "H":
        return units < size
    elif kind == "":
        return units[:, :1] >= 0
    else:
        return present & (units < size)
