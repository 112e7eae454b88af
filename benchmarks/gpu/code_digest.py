"""A digest of what a provider runs, which does not depend on names: machine code, launch parameters and libraries."""

import hashlib
import importlib.metadata
import inspect
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from typing import Any
from unittest import mock

import torch

from seqcells.request.weights import Weights

from .. import machine
from ..case import Case, Inputs
from ..providers import Prepared, Provider

NO_BITS = 8
"""The ELF type of a section without bytes in the file (SHT_NOBITS)."""
PLAIN = (bool, int, float, str, type(None))


def machine_code(binary: bytes) -> bytes:
    """Instructions and constants of a GPU binary, a 64-bit ELF file, without symbols and source lines."""
    (table,) = struct.unpack_from("<Q", binary, 0x28)
    size, count, names = struct.unpack_from("<HHH", binary, 0x3A)
    sections = [struct.unpack_from("<IIQQQQ", binary, table + index * size) for index in range(count)]
    strings = sections[names][4]
    found = []
    for name, kind, _, _, offset, length in sections:
        start = strings + name
        title = binary[start : binary.index(b"\0", start)]
        if title.startswith((b".text", b".nv.constant", b".rodata")) and kind != NO_BITS:
            found.append(binary[offset : offset + length])
    # A section is named after its kernel, and the name may decide the section's position, so sections are sorted.
    return b"\0".join(sorted(found))


def fingerprint(kernel: Any, grid: tuple[int, ...]) -> str:
    """A digest of a compiled kernel and its launch: grid, warps, shared memory, and the values compiled in."""
    data = kernel.metadata
    binary = next(kernel.asm[form] for form in ("cubin", "hsaco") if form in kernel.asm)
    launch = (*grid, data.num_warps, data.num_ctas, data.shared, getattr(data, "launch_cooperative_grid", False))
    constants = {place: value for place, value in kernel.src.constants.items() if isinstance(value, PLAIN)}
    return _digest(machine_code(binary), repr(launch), repr(sorted(constants.items())))


def _interpreted(function: Any, grid: Any, arguments: Mapping[str, Any]) -> str:
    """The fingerprint in Triton's interpreter, which has no machine code: a digest of the source."""
    constants = {name: value for name, value in arguments.items() if name.isupper() and isinstance(value, PLAIN)}
    # A kernel's source includes the functions that it calls.
    called = [_source(value) for value in arguments.values() if hasattr(value, "fn")]
    return _digest(_source(function).encode(), repr(grid), repr(sorted(constants.items())), *called)


def _source(function: Any) -> str:
    return inspect.getsource(function.fn).replace(function.fn.__name__, "kernel")


@contextmanager
def watched() -> Iterator[Counter[str]]:
    """Inside, each launch of a Triton kernel is counted by its `fingerprint`."""
    launches: Counter[str] = Counter()
    if find_spec("triton") is None:
        yield launches
        return
    from triton.compiler import CompiledKernel

    from seqcells.kernels.triton import interpreted

    if interpreted():
        from triton.runtime.interpreter import InterpretedFunction

        with mock.patch.object(InterpretedFunction, "run", _counting_runs(launches, InterpretedFunction.run)):
            yield launches
        return
    known: dict[tuple[str, tuple[int, ...]], str] = {}
    original = CompiledKernel.launch_metadata

    def launch_metadata(self: CompiledKernel, grid: tuple[int, ...], stream: int, *arguments: Any) -> Any:
        # Triton calls this method at each launch, from any launcher.
        key = self.hash, tuple(grid)
        if key not in known:
            known[key] = fingerprint(self, grid)
        launches[known[key]] += 1
        return original(self, grid, stream, *arguments)

    with mock.patch.object(CompiledKernel, "launch_metadata", launch_metadata):
        yield launches


def _counting_runs(launches: Counter[str], run: Callable[..., Any]) -> Callable[..., Any]:
    def counting(self: Any, *given: Any, grid: Any, warmup: bool, **named: Any) -> Any:
        arguments = {**dict(zip(self.arg_names, given, strict=False)), **named}
        launches[_interpreted(self, None if callable(grid) else tuple(grid), arguments)] += 1
        return run(self, *given, grid=grid, warmup=warmup, **named)

    return counting


def libraries(provider: Provider, device: str) -> dict[str, str]:
    """The versions of libraries that run beside Triton's kernels, or instead of them."""
    found = {"torch": torch.__version__, **_cuda(device)}
    for package in provider.packages:
        if package != "triton":  # Triton's kernels are compared by their machine code
            found[package] = importlib.metadata.version(package)
    return found


@cache
def _cuda(device: str) -> dict[str, str]:
    described = machine.describe(device, 1) if device == "cuda" else {}
    return {name: str(described[name]) for name in ("cuda", "cudnn", "driver") if name in described}


class Watched(Provider):
    """A provider that records what its calls run in `code`, once it has prepared a case."""

    def __init__(self, provider: Provider) -> None:
        self.provider, self.name, self.ours = provider, provider.name, provider.ours
        self.code: str | None = None
        self.kernels = 0

    def why_not_available(self, device: str) -> str | None:
        return self.provider.why_not_available(device)

    def why_not(self, case: Case) -> str | None:
        self.code = None
        return self.provider.why_not(case)

    def prepare(self, case: Case, weights: Weights, inputs: list[Inputs]) -> Prepared:
        prepared = self.provider.prepare(case, weights, inputs)
        prepared.run(0)  # compiles
        with watched() as launches:
            prepared.run(0)
        self.kernels = len(launches)
        versions = libraries(self.provider, case.device)
        self.code = _digest(b"", repr(sorted(launches.items())), repr(sorted(versions.items())))
        return prepared


def _digest(data: bytes, *words: str) -> str:
    return hashlib.sha256(b"\0".join([data, *(word.encode() for word in words)])).hexdigest()[:16]
