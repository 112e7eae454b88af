"""Launching one kernel many times over."""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from triton.compiler import CompiledKernel


class Launch:
    """A kernel bound to all of its arguments but the range to run, of steps or rows; arguments not given are None.

    What else is given by name, such as ``num_warps``, are options of the compiler.

    Triton's own launcher looks at every argument at every launch, to find what it has compiled for the like; that
    takes longer than these kernels do. Only numbers that nothing is compiled for change here, so it is asked once.
    """

    def __init__(self, kernel: Any, grid: tuple[int, int, int], **arguments: Any) -> None:
        self.kernel, self.grid = kernel, grid
        # In the kernel's own order, which is also that of the compiled one.
        self.arguments = [arguments.pop(name, None) for name in kernel.arg_names]
        self.options = arguments
        self.start, self.stop = kernel.arg_names.index("start"), kernel.arg_names.index("stop")
        self.again: Callable[..., None] | None = None

    def __call__(self, start: int, stop: int) -> None:
        """Run from ``start`` to ``stop``."""
        self.arguments[self.start], self.arguments[self.stop] = start, stop
        if self.again is not None:
            self.again(*self.arguments)
            return
        compiled = self.kernel[self.grid](*self.arguments, **self.options)
        if isinstance(compiled, CompiledKernel):
            self.again = compiled[self.grid]
            # Addresses need not be asked for again; the tensors are kept from being freed.
            self.tensors = self.arguments
            self.arguments = [v.data_ptr() if isinstance(v, Tensor) else v for v in self.arguments]
