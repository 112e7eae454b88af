"""A GPU that is not here, as far as the Triton engine's Python can tell: it chooses, divides and prepares as on an
H200, and a launch does nothing but count."""

import os
from importlib import import_module
from typing import Any

import torch

from seqcells.kernels import triton as engine

PROCESSORS, SHARED_MEMORY = 132, 227 << 10
"""An H200's multiprocessors, and what a program may have of the memory of one, in bytes."""


def why_not() -> str | None:
    """Why it cannot be acted out, or None."""
    return None if engine.INSTALLED else "triton is not installed"


def act_out() -> list[Any]:
    """From here on, and for good in this process, the engine takes tensors on the CPU. Returns a list that grows by the
    grid of each launch.

    Raises:
        RuntimeError: the kernels were imported as interpreted ones.
    """
    # Kernels are what they are made as: compiled ones here, which the interpreter's name then lets near the CPU.
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
        """Of whichever kernel."""

        def __init__(self) -> None:
            """It was not compiled."""

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
