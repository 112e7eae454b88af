"""The barrier by which the programs of one launch wait for each other, again and again.

Counters only grow, so that none is ever reset; each has a cache line of its own. At a barrier all programs use one
counter. Each program adds one when its writes may be read, and waits until all programs have added theirs. So the
target of meeting m is m times the number of programs. With flags each program has a counter of its own, the number of
steps that it has written. A reader waits only for the programs whose units it reads. All programs must be on the device
at once, which a cooperative launch guarantees. Should one be missing all the same, the other programs stop waiting
after ``patience`` looks at a counter. They run to their end on what they find, and report it: a bug gives an error, not
a machine that hangs.
"""

import triton
import triton.language as tl

from .. import interpreted

# The distance between two counters, in int32 numbers: a cache line each.
APART = tl.constexpr(32)
# The threads of a program, each of which can look at one counter; see `configurations.PERSISTENT_WARPS`.
LOOKING = tl.constexpr(256)
# In Triton an acquiring load is an atomic addition of 0. For a scalar, each look then takes a trip through shared
# memory and two barriers of the block (triton #7125). The minimum over a tensor of looks takes such a trip too. This
# assembly is one load by each of the first threads, one thread per counter. More loads would queue for a line of the L2
# cache. Each of these threads waits for its own counter. All other threads are given the target, and wait at the
# block's barrier.
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
    """The first counter of a group, and this program's counter."""
    if FLAGS:
        counters = arrived + group * tl.num_programs(0) * APART
        return counters, counters + tl.program_id(0) * APART
    else:
        return arrived + group * APART, arrived + group * APART


@triton.jit
def arrive(counter):
    """Signal that what this program has written may be read."""
    # The stores of all threads must come before the release, which one thread makes.
    tl.debug_barrier()
    tl.atomic_add(counter, 1, sem="release", scope="gpu")


@triton.jit
def wait(counters, count, target, patience):
    """Wait until each of ``count`` counters has reached the target. Returns the patience left, or 0 after a timeout.

    Each thread has its own value of the result: see `check_in_time`.
    """
    looks = 0
    while (looks < patience) & (_look(counters, count, target) < target):
        looks += 1
    # No thread may read what other programs wrote before the threads that look have seen the target.
    tl.debug_barrier()
    return tl.where(looks < patience, patience, 0)


@triton.jit
def check_in_time(patience):
    """Stop with an error if the patience of any thread has run out. Kernels that call this are compiled with
    assertions."""
    tl.device_assert(patience > 0, "the persistent kernel timed out: a program never reached the grid barrier")


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
