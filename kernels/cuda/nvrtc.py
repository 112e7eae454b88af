"""NVIDIA's run-time compiler, which compiles CUDA C++ for one architecture. It needs no GPU."""

import ctypes
import re
import sys
from collections.abc import Iterator, Mapping
from ctypes.util import find_library
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch

OPTIONS = ("-std=c++17", "-default-device", "--ptxas-options=-v")


class CannotCompileError(RuntimeError):
    """The reason why there is no code."""


def why_not_available() -> str | None:
    """Why there is no compiler here, or None."""
    try:
        _library()
    except CannotCompileError as reason:
        return str(reason)
    return None


@cache
def version() -> tuple[int, int]:
    """The compiler's version.

    Raises:
        CannotCompileError: there is no compiler.
    """
    major, minor = ctypes.c_int(), ctypes.c_int()
    _check(_library().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)))
    return major.value, minor.value


class Code(NamedTuple):
    """A compiled source, and the registers and stack that a thread of its kernel takes."""

    binary: bytes
    registers: int
    stack_bytes: int
    """Local memory in place of registers."""


def compiled(text: str, headers: Mapping[str, str], architecture: str) -> Code:
    """Compile a source with one kernel, for an architecture such as ``"sm_90"``.

    Raises:
        CannotCompileError: there is no compiler, or it fails; the error has its first messages.
    """
    library, program = _library(), ctypes.c_void_p()
    names, texts = ([each.encode() for each in part] for part in (headers, headers.values()))
    both = [(ctypes.c_char_p * len(part))(*part) for part in (texts, names)]
    source = text.encode(), b"cluster.cu"
    _check(library.nvrtcCreateProgram(ctypes.byref(program), *source, len(headers), *both))
    try:
        options = [each.encode() for each in (*OPTIONS, f"--gpu-architecture={architecture}")]
        failed = library.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
        said = _read(program, library.nvrtcGetProgramLogSize, library.nvrtcGetProgramLog).decode(errors="replace")
        if failed:
            lines = [line for line in said.splitlines() if "error" in line] or said.splitlines()
            raise CannotCompileError(f"NVRTC fails: {'; '.join(lines[:3])}")
        registers, stack = (re.search(words, said) for words in (r"Used (\d+) registers", r"(\d+) bytes stack frame"))
        if registers is None or stack is None:
            raise CannotCompileError("NVRTC does not tell what a thread of the kernel takes")
        binary = _read(program, library.nvrtcGetCUBINSize, library.nvrtcGetCUBIN)
        return Code(binary, int(registers[1]), int(stack[1]))
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


def _read(program: ctypes.c_void_p, size_of, read) -> bytes:
    size = ctypes.c_size_t()
    _check(size_of(program, ctypes.byref(size)))
    room = ctypes.create_string_buffer(size.value)
    _check(read(program, room))
    return room.raw


@cache
def _library() -> ctypes.CDLL:
    for path in _paths():
        try:
            return ctypes.CDLL(path)
        except OSError:
            continue
    raise CannotCompileError("NVRTC was not found: torch's CUDA wheels bring it, as nvidia-cuda-nvrtc does")


def _paths() -> Iterator[str]:
    """Paths where NVRTC may be. The version for torch's own CUDA comes first."""
    own = (torch.version.cuda or "").partition(".")[0]
    folders = [Path(entry, "nvidia") for entry in dict.fromkeys([str(Path(torch.__file__).parents[1]), *sys.path])]
    found = [path for folder in folders for path in sorted(folder.glob("*/lib/libnvrtc.so.*"), reverse=True)]
    found = [path for path in found if "builtins" not in path.name and ".alt" not in path.name]
    yield from map(str, sorted(found, key=lambda path: path.name != f"libnvrtc.so.{own}"))
    yield f"libnvrtc.so.{own or 13}"
    if find_library("nvrtc"):
        yield find_library("nvrtc")
    for folder in ("/usr/local/cuda/lib64", "/usr/local/cuda/targets/x86_64-linux/lib"):
        yield f"{folder}/libnvrtc.so"


def _check(code: int) -> None:
    if code:
        raise CannotCompileError(f"NVRTC fails with error {code}")
