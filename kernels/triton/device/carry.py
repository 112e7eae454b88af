"""What is carried from chunk to chunk of sequences whose chunks have run side by side; see `plans.scan`."""

import triton
import triton.language as tl


@triton.jit
def carry(
    gain, end, cut, first, starts, last, count, size, backwards, directions: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """Write what each chunk begins with, ``starts`` (D, K, size), and what the last one ends with, ``last`` (D, size).

    A chunk's end is gain · start + end, both (D, K, size), or ``end`` alone where ``cut`` (K, size) is set. ``first``
    (D, size) is what the first chunk in the direction of travel begins with. The lowest bits of ``backwards`` tell
    which directions go from the last chunk to the first. A program has a block of units of one direction.
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
