"""Launching one kernel many times over."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from triton.compiler import CompiledKernel
from triton.runtime.jit import JITFunction, MockTensor

from .. import interpreted

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
        self.arguments = [*map(_address, self.arguments)]

    def _key(self) -> tuple[Any, ...]:
        """Of a tensor its dtype and whether 16 divides its address, of a number that varies how wide it is."""
        form: list[Any] = [self.kernel, *self.options.items()]
        for parameter, value in zip(self.kernel.params, self.arguments, strict=True):
            if parameter.do_not_specialize and value is not None:
                form.append(-(1 << 31) <= value < 1 << 31)
            else:
                form.append(_form(value))
        return tuple(form)


def once(kernel: Any, grid: tuple[int, int, int], **arguments: Any) -> None:
    """Launch a kernel; arguments not given are None, and what else is given by name are options of the compiler."""
    ordered = [arguments.pop(name, None) for name in kernel.arg_names]
    kernel[grid](*ordered, **arguments)


class Part(NamedTuple):
    """A tensor's memory from one of its numbers on, taken for numbers of a dtype: what only kernels read and write."""

    tensor: Tensor
    first: int
    """As numbers of the dtype are counted."""
    dtype: torch.dtype

    def data_ptr(self) -> int:
        return self.tensor.data_ptr() + self.first * self.dtype.itemsize

    def view(self) -> Tensor:
        return self.tensor.view(-1).view(self.dtype)[self.first :]


class Repeated:
    """A kernel that is compiled at once, and bound to all that is the same in many calls.

    Args:
        varying: of what each call brings, by name and in the order that it does, the dtype; of a tuple of tensors a
            tuple.
        arguments: the others, and the compiler's options, as `Launch` has them.
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
            self._run = compiled[grid]  # loads it too, which is not to happen while a CUDA graph is captured

    def __call__(self, values: Sequence[Any]) -> None:
        """Launch it for tensors, tuples of them, or parts of their memory, which is to be there until it has run."""
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
        if self._run is None or together % 16:  # it is compiled for wide reads
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
    """What of a value is compiled in."""
    if isinstance(value, tuple):
        return tuple(map(_form, value))
    if not isinstance(value, Tensor):
        return value
    wide = value.untyped_storage().nbytes() < 1 << 31 if torch.version.hip else None
    return value.dtype, value.device, value.data_ptr() % 16 == 0, wide


def _address(value: Any) -> Any:
    """Of a tensor its address, of several theirs."""
    if isinstance(value, tuple):
        return tuple(map(_address, value))
    return value.data_ptr() if isinstance(value, Tensor) else value
