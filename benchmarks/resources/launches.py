"""What the Triton engines would launch on a GPU that is not present: their own Python runs on meta tensors."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from seqcells.kernels.triton import interpreted

try:
    _SOME = torch.empty(1, 1, 1, dtype=torch.bfloat16, device="meta")
    torch.bmm(_SOME, _SOME, out_dtype=torch.float32, out=_SOME.float())
except NotImplementedError:  # torch 2.11 has no such product of meta tensors; the launches do not need its values
    _META = torch.library.Library("aten", "IMPL", "Meta")
    _META.impl("bmm.dtype_out", lambda left, right, out_dtype, *, out: out)


class Target(NamedTuple):
    """The properties of a GPU that kernels depend on."""

    gpu: GPUTarget
    shared_memory: int
    """The bytes of shared memory that a block may use."""
    processors: int
    """The number of multiprocessors, or of compute units."""


TARGETS = {
    "sm_80": Target(GPUTarget("cuda", 80, 32), 163 << 10, 108),  # A100
    "sm_90": Target(GPUTarget("cuda", 90, 32), 227 << 10, 132),  # H100
    "sm_100": Target(GPUTarget("cuda", 100, 32), 227 << 10, 148),  # B200
    "gfx942": Target(GPUTarget("hip", "gfx942", 64), 64 << 10, 304),  # MI300X
}


class Launched(NamedTuple):
    """A kernel, specialized as Triton would compile it for one launch."""

    function: JITFunction
    key: str
    """Triton's cache key: types, values that are compiled in, and options."""
    signature: dict[str, str]
    constants: dict[tuple, Any]
    attributes: dict[tuple, Any]
    options: dict[str, Any]

    @property
    def name(self) -> str:
        """The kernel by its module and name: ``gates.forward``."""
        return f"{self.function.__module__.rpartition('.')[2]}.{self.function.__name__}"

    @property
    def tile(self) -> dict[str, int | list[int]]:
        """The sizes compiled in, which by convention have upper-case names; a tuple gives a list."""
        sizes: dict[str, list[int]] = {}
        for (index, *_), value in self.constants.items():
            if (name := self.function.arg_names[index]).isupper():
                sizes.setdefault(name, []).append(value)
        return {name: values if len(values) > 1 else values[0] for name, values in sizes.items()}


class _Absent:
    """A driver for a GPU that is not present; only the target of compilation is known."""

    def __init__(self, target: GPUTarget) -> None:
        self.target = target

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> GPUTarget:
        # The target stands for the device, so that what kernels cache by device is separate for each target.
        return self.target

    def get_current_stream(self, device: Any) -> int:
        return 0


@contextmanager
def recorded(target: Target) -> Iterator[list[Launched]]:
    """Inside, torch and Triton see the target, and a launch runs nothing but is appended to the list.

    Triton itself decides what is compiled in; the recording replaces only its compiler.

    Raises:
        RuntimeError: the kernels are interpreted; see TRITON_INTERPRET.
    """
    if interpreted():
        raise RuntimeError("TRITON_INTERPRET is set: interpreted kernels cannot be compiled")
    launches: list[Launched] = []

    def record(function, key, signature, device, constants, options, attributes, warmup):
        launches.append(Launched(function, key, signature, constants, attributes, options.__dict__))

    before = driver._active
    driver.set_active(_Absent(target.gpu))
    properties = SimpleNamespace(
        multi_processor_count=target.processors, shared_memory_per_block_optin=target.shared_memory
    )
    try:
        with (
            mock.patch.object(JITFunction, "_do_compile", record),
            mock.patch.object(torch.cuda, "get_device_properties", lambda device=None: properties),
        ):
            yield launches
    finally:
        driver._active = before
