"""Where the programs of one launch meet, over and over.

A counter that only grows: each program adds one when what it has written may be read, and waits until all have added
theirs, so the target of meeting m is m times their number and nothing is ever set back. All of them must be on the
device at once, which a cooperative launch guarantees; should one be missing all the same, the others stop waiting after
``patience`` looks, run to their end on what they find, and say so: a bug gives an error, not a machine that hangs.
"""

import triton
import triton.language as tl

from . import interpreted

# Triton's own acquiring load is an atomic addition of nothing, followed, for a scalar, by a trip through shared memory
# and two barriers of the block at every look (triton #7125). This is one load, by one thread: more of them would queue
# for one line of the L2 cache. The other threads are given the target, and wait at the block's barrier.
_LOOK = tl.constexpr("""{
    .reg .pred first;
    .reg .u32 thread;
    mov.u32 thread, %tid.x;
    setp.eq.u32 first, thread, 0;
    mov.u32 $0, $2;
    @first ld.acquire.gpu.global.u32 $0, [$1];
}""")
INTERPRETED = tl.constexpr(interpreted())


@triton.jit
def arrive(counter):
    """Say that what this program has written may be read."""
    # Every thread's stores come before the one thread's release.
    tl.debug_barrier()
    tl.atomic_add(counter, 1, sem="release", scope="gpu")


@triton.jit
def wait(counter, target, patience):
    """Until the counter has reached the target → the patience to go on with: 0 once it has run out."""
    looks = 0
    while (looks < patience) & (_look(counter, target) < target):
        looks += 1
    # No thread reads what others wrote before the one thread has seen that it is there.
    tl.debug_barrier()
    return tl.where(looks < patience, patience, 0)


@triton.jit
def _look(counter, target):
    if INTERPRETED:
        return tl.atomic_add(counter, 0, sem="acquire", scope="gpu")
    else:
        return tl.inline_asm_elementwise(_LOOK, "=r,l,r", [counter, target], dtype=tl.int32, is_pure=False, pack=1)
