"""Repeated launches of a kernel."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from triton.compiler import CompiledKernel
from triton.runtime.jit import JITFunction, MockTensor

from .. import interpreted

if interpreted():
    from . import interpreter  # noqa: F401

# Compiled kernels, by the kernel and everything that its compilation depends on. The keys hold more than that.
_compiled: dict[tuple, CompiledKernel] = {}


class Launch:
    """A kernel bound to all of its arguments but the range of steps or rows to run. Arguments that are not given are
    None.

    Names that are not arguments of the kernel, such as ``num_warps``, are options of the compiler.

    At every launch Triton's own launcher looks at every argument to find the compiled kernel, which takes longer than
    these kernels do. Between calls of a `Launch` only integers change that nothing is compiled for. So a `Launch` asks
    Triton once. Another `Launch` with the same key takes the compiled kernel without asking.
    """

    def __init__(self, kernel: Any, grid: tuple[int, int, int], **arguments: Any) -> None:
        self.kernel, self.grid = kernel, grid
        # In the order of the kernel's arguments, which is also the compiled kernel's order.
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
        # Later calls pass addresses, which need not be asked for again. Keeping the tensors keeps their memory.
        self.tensors = self.arguments
        self.arguments = [*map(_address, self.arguments)]

    def _key(self) -> tuple[Any, ...]:
        """The key of the compiled kernel. A tensor counts by its dtype and whether 16 divides its address. An integer
        that varies counts by whether it fits in 32 bits."""
        form: list[Any] = [self.kernel, *self.options.items()]
        for parameter, value in zip(self.kernel.params, self.arguments, strict=True):
            if parameter.do_not_specialize and value is not None:
                form.append(-(1 << 31) <= value < 1 << 31)
            else:
                form.append(_form(value))
        return tuple(form)


def once(kernel: Any, grid: tuple[int, int, int], **arguments: Any) -> None:
    """Launch a kernel. Arguments that are not given are None; other names are options of the compiler."""
    ordered = [arguments.pop(name, None) for name in kernel.arg_names]
    kernel[grid](*ordered, **arguments)


class Part(NamedTuple):
    """A tensor's memory from one of its elements on, taken for elements of a dtype. Only kernels read and write it."""

    tensor: Tensor
    first: int
    """The first element, counted in elements of ``dtype``."""
    dtype: torch.dtype

    def data_ptr(self) -> int:
        return self.tensor.data_ptr() + self.first * self.dtype.itemsize

    def view(self) -> Tensor:
        return self.tensor.view(-1).view(self.dtype)[self.first :]


class Repeated:
    """A kernel that is compiled at once, and bound to all arguments that are the same in many calls.

    Args:
        varying: the arguments that each call brings, by name and in the call's order. Each has a dtype, or for a tuple
            of tensors a tuple of dtypes.
        arguments: all other arguments, and the compiler's options, as `Launch` has them.
    """

    def __init__(self, kernel: Any, grid: tuple[int, int, int], varying: Mapping[str, Any], **arguments: Any) -> None:
        self._kernel, self._grid = kernel, grid
        self._fixed = [arguments.pop(name, None) for name in kernel.arg_names]
        self._options = arguments
        self._places = [kernel.arg_names.index(name) for name in varying]
        self._run: Callable[..., None] | None = None
        if isinstance(kernel, JITFunction):
            like = self._filled([*map(_like, varying.values())])
            compiled = kernel.warmup(*like, grid=grid, **self._options)
            self._run = compiled[grid]  # loads it too, which must not happen while a CUDA graph is captured

    def __call__(self, values: Sequence[Any]) -> None:
        """Launch the kernel for tensors, tuples of tensors, or parts of their memory. The memory must stay until the
        kernel has run."""
        arguments, together = self._fixed.copy(), 0
        for place, value in zip(self._places, values, strict=True):
            if type(value) is tuple:
                address = tuple([each.data_ptr() for each in value])
                for each in address:
                    together |= each
            else:
                address = value.data_ptr()
                together |= address
            arguments[place] = address
        if self._run is None or together % 16:  # it is compiled for aligned addresses
            self._kernel[self._grid](*self._filled(values), **self._options)
        else:
            self._run(*arguments)

    def _filled(self, values: Sequence[Any]) -> list[Any]:
        arguments = self._fixed.copy()
        for place, value in zip(self._places, values, strict=True):
            arguments[place] = _whole(value)
        return arguments


def _like(dtype: Any) -> Any:
    return tuple(map(_like, dtype)) if isinstance(dtype, tuple) else MockTensor(dtype)


def _whole(value: Any) -> Any:
    if isinstance(value, Part):
        return value.view()
    return tuple(map(_whole, value)) if isinstance(value, tuple) else value


def _form(value: Any) -> Any:
    """The part of an argument that is compiled in."""
    if isinstance(value, tuple):
        return tuple(map(_form, value))
    if not isinstance(value, Tensor):
        return value
    wide = value.untyped_storage().nbytes() < 1 << 31 if torch.version.hip else None
    return value.dtype, value.device, value.data_ptr() % 16 == 0, wide


def _address(value: Any) -> Any:
    """A tensor's address; a tuple of addresses for a tuple of tensors."""
    if isinstance(value, tuple):
        return tuple(map(_address, value))
    return value.data_ptr() if isinstance(value, Tensor) else value
