"""Launching one kernel many times over."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from triton.compiler import CompiledKernel
from triton.runtime.jit import JITFunction

from . import interpreted

if interpreted():
    from . import interpreter  # noqa: F401

# What has been compiled, by the kernel and all that it was compiled for, and more.
_compiled: dict[tuple, CompiledKernel] = {}


class Launch:
    """A kernel bound to all of its arguments but the range to run, of steps or rows; arguments not given are None.

    What else is given by name, such as ``num_warps``, are options of the compiler.

    Triton's own launcher looks at every argument at every launch, to find what it has compiled for the like; that
    takes longer than these kernels do. Only numbers that nothing is compiled for change here, so it is asked once, and
    of another launch's arguments no more is looked at than has to be.
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
        key = self._key() if isinstance(self.kernel, JITFunction) else None
        if key not in _compiled:
            compiled = self.kernel[self.grid](*self.arguments, **self.options)
            if not isinstance(compiled, CompiledKernel):
                return
            _compiled[key] = compiled
        else:
            _compiled[key][self.grid](*self.arguments)
        self.again = _compiled[key][self.grid]
        # Addresses need not be asked for again; the tensors are kept from being freed.
        self.tensors = self.arguments
        self.arguments = [v.data_ptr() if isinstance(v, Tensor) else v for v in self.arguments]

    def _key(self) -> tuple[Any, ...]:
        """Of a tensor its dtype and whether 16 divides its address, of a number that varies how wide it is."""
        form: list[Any] = [self.kernel, *self.options.items()]
        for parameter, value in zip(self.kernel.params, self.arguments, strict=True):
            if isinstance(value, Tensor):
                form += value.dtype, value.device, value.data_ptr() % 16 == 0
                if torch.version.hip:
                    form.append(value.untyped_storage().nbytes() < 1 << 31)
            elif parameter.do_not_specialize and value is not None:
                form.append(-(1 << 31) <= value < 1 << 31)
            else:
                form.append(value)
        return tuple(form)
