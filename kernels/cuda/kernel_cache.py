"""Compiled cluster kernels. They are kept on disk under a hash of their sources, architecture and compiler, and loaded
once on each device."""

from functools import cache, partial
from pathlib import Path

import torch

from ...derive import kernel_cache
from ...system import cache as files
from . import nvrtc, source
from .division import BLOCKS, Device
from .driver import Function, Launch
from .nvrtc import CannotCompileError, Code

EMPTY = f'extern "C" __global__ void {source.KERNEL}() {{}}\n'
"""An empty kernel, by which a device is asked how many clusters run at once."""


@cache
def clusters(device: int) -> Device:
    """The resources that a device has for clusters. ``device`` is its index.

    Raises:
        CannotCompileError: there is no compiler for the empty kernel.
        DriverError: the driver refuses the empty kernel.
    """
    most = torch.cuda.get_device_properties(device).shared_memory_per_block_optin
    with torch.cuda.device(device):
        empty = function(EMPTY, most)
        return Device(most, tuple(empty.clusters_at_once(Launch(blocks, 1, blocks, 32, most)) for blocks in BLOCKS))


def function(text: str, shared_bytes: int) -> Function:
    """The kernel of a source, compiled for the current device and loaded there.

    Raises:
        CannotCompileError: there is no compiler, or it fails.
        DriverError: the driver does not load the kernel.
    """
    return _loaded(text, shared_bytes, torch.cuda.current_device())


def architecture(device: torch.device | int) -> str:
    """The name of a device's architecture."""
    major, minor = torch.cuda.get_device_capability(device)
    return f"sm_{major}{minor}"


@cache
def _loaded(text: str, shared_bytes: int, device: int) -> Function:
    return Function(code(text, architecture(device)).binary, source.KERNEL, shared_bytes)


@cache
def code(text: str, architecture: str) -> Code:
    """The compiled code of a source, for an architecture such as ``"sm_90"``.

    Raises:
        CannotCompileError: there is no compiler, or it fails.
    """
    headers = source.headers()
    words = (text, *headers.values(), architecture, *nvrtc.OPTIONS, str(nvrtc.version()))
    name = f"{kernel_cache.key(*words)}.cubin"
    try:
        (path,) = kernel_cache.made([name], partial(_compile, text, headers, architecture, name))
    except TimeoutError as reason:
        raise CannotCompileError(str(reason)) from None
    # The file has a line with a thread's registers and stack bytes, then the binary.
    line, binary = path.read_bytes().split(b"\n", 1)
    return Code(binary, *map(int, line.split()))


def _compile(text: str, headers: dict[str, str], architecture: str, name: str, folder: Path) -> None:
    if kernel_cache.why_not_allowed():
        raise CannotCompileError(f"the kernel was not compiled before, and {kernel_cache.why_not_allowed()}")
    made = nvrtc.compiled(text, headers, architecture)
    files.write(folder / name, f"{made.registers} {made.stack_bytes}\n".encode() + made.binary)
