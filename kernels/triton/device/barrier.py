"""Where the programs of one launch wait for each other, over and over.

Counters only grow, one to a line of the cache, so that nothing is ever set back. At a barrier all meet at one: each
program adds one when what it has written may be read, and waits until all have added theirs, so the target of meeting m
is m times their number. With flags each has a counter of its own, the number of steps it has written, and whoever reads
waits for those alone whose units are in what it reads. All of them must be on the device at once, which a cooperative
launch guarantees; should one be missing all the same, the others stop waiting after ``patience`` looks, run to their
end on what they find, and say so: a bug gives an error, not a machine that hangs.
"""

import triton
import triton.language as tl

from .. import interpreted

# Counters are so many numbers apart: one to a line of the cache.
APART = tl.constexpr(32)
# A program has so many threads, each of which can look at one counter; see `configurations.PERSISTENT_WARPS`.
LOOKING = tl.constexpr(256)
# Triton's own acquiring load is an atomic addition of nothing, followed, for a scalar, by a trip through shared memory
# and two barriers of the block at every look (triton #7125), and of a tensor's looks the least takes such a trip too.
# This is one load by each thread that has a counter to look at, the first ones: more of them would queue for a line of
# the L2 cache. Each waits for its own; the other threads are given the target, and wait at the block's barrier.
_LOOK = tl.constexpr("""{
    .reg .pred looks;
    .reg .u32 thread;
    .reg .u64 line;
    mov.u32 thread, %tid.x;
    setp.lt.s32 looks, thread, $2;
    mad.wide.u32 line, thread, 128, $1;
    mov.u32 $0, $3;
    @looks ld.acquire.gpu.global.u32 $0, [line];
}""")
INTERPRETED = tl.constexpr(interpreted())


@triton.jit
def counters_of(arrived, group, FLAGS: tl.constexpr):
    """A group's first counter, and this program's."""
    if FLAGS:
        counters = arrived + group * tl.num_programs(0) * APART
        return counters, counters + tl.program_id(0) * APART
    else:
        return arrived + group * APART, arrived + group * APART


@triton.jit
def arrive(counter):
    """Say that what this program has written may be read."""
    # Every thread's stores come before the one thread's release.
    tl.debug_barrier()
    tl.atomic_add(counter, 1, sem="release", scope="gpu")


@triton.jit
def wait(counters, count, target, patience):
    """Until each of so many counters has reached the target → the patience to go on with: 0 once it has run out.

    It is each thread's own: see `tell`.
    """
    looks = 0
    while (looks < patience) & (_look(counters, count, target) < target):
        looks += 1
    # No thread reads what others wrote before those that look have seen that it is there.
    tl.debug_barrier()
    return tl.where(looks < patience, patience, 0)


@triton.jit
def tell(patience):
    """Stop with an error where the patience of some thread has run out. Its kernels are compiled with assertions."""
    tl.device_assert(patience > 0, "programs of the persistent plan have waited for each other in vain")


@triton.jit
def _look(counters, count, target):
    if INTERPRETED:
        which = tl.arange(0, LOOKING)
        seen = tl.atomic_add(counters + which * APART, 0, which < count, sem="acquire", scope="gpu")
        return tl.min(tl.where(which < count, seen, target))
    else:
        return tl.inline_asm_elementwise(
            _LOOK, "=r,l,r,r", [counters, count, target], dtype=tl.int32, is_pure=False, pack=1
        )
