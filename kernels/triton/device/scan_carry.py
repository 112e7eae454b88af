"""The carry of states from chunk to chunk of sequences, after the chunks have run side by side; see `plans.scan`."""

import triton
import triton.language as tl


@triton.jit
def carry(
    gain, end, cut, first, starts, last, count, size, backwards, directions: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """Write the state with which each chunk begins, ``starts`` (D, K, size), and the state with which the last chunk
    ends, ``last`` (D, size).

    A chunk's end is gain · start + end, both (D, K, size). Where ``cut`` (K, size) is set it is ``end`` alone.
    ``first`` (D, size) is the state with which the first chunk in the direction of travel begins. The lowest bits of
    ``backwards`` tell which directions go from the last chunk to the first. A program has a block of units in one
    direction.
    """
    direction = tl.program_id(1).to(tl.int64)
    units = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    there = units < size
    reverse = (backwards >> direction.to(tl.int32)) & 1
    state = tl.load(first + direction * size + units, mask=there)
    for i in range(count):
        chunk = i + reverse * (count - 1 - 2 * i)
        place = (direction * count + chunk) * size + units
        tl.store(starts + place, state, mask=there)
        passed = tl.load(gain + place, mask=there) * state
        if cut is not None:
            passed = tl.where(tl.load(cut + chunk * size + units, mask=there, other=0) != 0, 0.0, passed)
        state = passed + tl.load(end + place, mask=there)
    tl.store(last + direction * size + units, state, mask=there)
