"""Emulates an H200 for the Triton engine's Python: it chooses, divides and prepares as on an H200, and a launch is only
counted."""

import os
from importlib import import_module
from typing import Any

import torch

from seqcells.kernels import triton as engine

PROCESSORS, SHARED_MEMORY = 132, 227 << 10
"""An H200's number of multiprocessors, and the shared memory in bytes that a program may use on one."""


def why_not() -> str | None:
    """Why a GPU cannot be emulated, or None."""
    return None if engine.INSTALLED else "triton is not installed"


def act_out() -> list[Any]:
    """Make the engine take tensors on the CPU, for the rest of this process.

    Returns a list that grows by the grid of each launch.

    Raises:
        RuntimeError: the kernels were imported as interpreted kernels.
    """
    # Kernels are created compiled here. The variable, set again below, then makes the engine accept tensors on the CPU.
    os.environ.pop("TRITON_INTERPRET", None)
    from triton.compiler import CompiledKernel
    from triton.runtime.jit import JITFunction

    from seqcells.kernels.triton.device import sequence
    from seqcells.kernels.triton.host import configurations
    from seqcells.kernels.triton.plans import plan

    for module, _ in plan.PLANS.values():
        import_module(f"seqcells.kernels.triton.plans.{module}")
    if not isinstance(sequence.forward, JITFunction):
        raise RuntimeError("the Triton engine was imported while TRITON_INTERPRET was set")
    os.environ["TRITON_INTERPRET"] = "1"
    launches: list[Any] = []

    class Compiled(CompiledKernel):
        """Stands for any compiled kernel."""

        def __init__(self) -> None:
            """Nothing was compiled."""

        def __getitem__(self, grid: Any) -> Any:
            return lambda *arguments: launches.append(grid)

    compiled = Compiled()

    def run(kernel: JITFunction, *arguments: Any, grid: Any, warmup: bool, **options: Any) -> Compiled:
        if not warmup:
            launches.append(grid)
        return compiled

    JITFunction.run = run
    configurations.nvidia = lambda: True
    configurations.processors = lambda device: (PROCESSORS, SHARED_MEMORY)
    torch.backends.cudnn.rnn.fp32_precision = "tf32"  # torch's default where there is a GPU
    return launches
