"""A Triton kernel whose programs only meet at a barrier, over and over: the cost of a barrier in a persistent
kernel."""

import torch
import triton
import triton.language as tl


@triton.jit
def meet(arrived, rounds, programs):  # arrived: (1,) int32, zero at first
    done = 0
    while done < rounds:  # for … in range needs an int, which triton 3.6's interpreter cannot make under numpy 2.4
        done += 1
        tl.atomic_add(arrived, 1, sem="release", scope="gpu")
        # An atomic addition of zero reads what the other programs have written, and cannot be hoisted out of the loop.
        while tl.atomic_add(arrived, 0, sem="acquire", scope="gpu") < done * programs:
            pass


def launch(arrived: torch.Tensor, rounds: int, programs: int) -> None:
    """Let ``programs`` programs meet. All must fit on the device at once; the cooperative launch checks this."""
    meet[(programs,)](arrived, rounds, programs, num_warps=4, launch_cooperative_grid=True)
