"""A cell's passes: built into the extension, or compiled at first use. The cache keeps a library for each pass.

A pass's key is a hash of what the pass is made of, the printed cell and the headers, never of the cell's name. So a
redefined cell gets kernels of its own. With ``SEQCELLS_COMPILE=never`` no compiler runs, and the reference runs cells
without libraries. ``$CXX`` is the compiler, and ``$CXXFLAGS`` are options besides the engine's.
"""

import ctypes
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import torch

from ...cells import Cell
from ...derive import kernel_cache
from ...derive.derivation import derive
from ...derive.expressions import DerivationError
from ...derive.layout import Layout, layouts
from ...derive.print_loop import STRUCT, cpp_struct
from ...derive.trace import code_of
from . import _engine, library

HEADERS = Path(__file__).parent
BASES = {"amxbf16": "avx512", "avx512bf16": "avx512"}
"""Instruction sets that add products to another set, and the set whose cells they run."""
TYPES = {torch.float32: "float", torch.float64: "double"}
FLAGS = ("-std=c++17", "-O3", "-fno-math-errno", "-g0", "-fvisibility=hidden", "-Wno-psabi", "-fPIC", "-shared")


class Pass(NamedTuple):
    """A compiled pass: where its values lie, the names of its arrays in order, and the address of the library's
    pass."""

    layout: Layout
    arrays: tuple[str, ...]
    address: int


class Passes(NamedTuple):
    """Both passes of a cell, for one instruction set and one working dtype."""

    forward: Pass
    backward: Pass


class CannotCompileError(Exception):
    """The reason why a cell has no library."""


class CompilerError(CannotCompileError):
    """The first lines of the compiler's message about a cell."""


Kept = tuple[str, ...]
"""The names of a cell's results whose values of all steps are kept."""


def why_not(cell: type[Cell], dtype: torch.dtype) -> str | None:
    """Why a cell cannot run, or None. This compiles the cell, with a line on stderr, unless it was compiled before."""
    found = _found(cell, library.WORKING[library.precision(dtype)])
    return found if isinstance(found, str) else None


def why_not_compile() -> str | None:
    """Why nothing can be compiled here, or None."""
    if kernel_cache.why_not_allowed():
        return kernel_cache.why_not_allowed()
    if _engine.headers != _stamp():
        return "the extension was built from other headers: rebuild it"
    if _compiler():
        return None
    own = os.environ.get("CXX")
    return f"no C++ compiler was found: {f'$CXX is {own!r}' if own else 'neither c++, g++ nor clang++'}"


def report() -> list[str]:
    """Lines for `seqcells.info`: which compiler compiles cells, and which libraries exist."""
    compiler, why_not = _compiler(), why_not_compile()
    if why_not or compiler is None:
        lines = [f"compiler: none in use, {why_not}"]
    else:
        lines = [f"compiler: {shlex.join(compiler)}, {_version(compiler).partition(chr(10))[0]}"]
    folder, there = kernel_cache.kept(".so")
    size = sum(path.stat().st_size for path in there)
    return [*lines, f"kept in {folder}: {len(there)} libraries, {size >> 10} KiB"]


def passes(cell: type[Cell], dtype: torch.dtype, kept: Kept = ()) -> Passes:
    """A cell's passes, computed in float32 or float64. Forward leaves the ``kept`` results.

    Raises:
        RuntimeError: the cell cannot be compiled; see `why_not`.
    """
    found = _found(cell, dtype, kept)
    if isinstance(found, str):
        raise RuntimeError(f"the CPU engine cannot run the {cell.name} cell: {found}")
    return found


def _found(cell: type[Cell], dtype: torch.dtype, kept: Kept = ()) -> Passes | str:
    may_compile = kernel_cache.why_not_allowed() is None
    return _passes_or_reason(cell, dtype, BASES.get(library.target, library.target), kept, may_compile)


@cache
def _passes_or_reason(cell: type[Cell], dtype: torch.dtype, target: str, kept: Kept, may_compile: bool) -> Passes | str:
    try:
        both, struct = printed(cell, kept)
        addresses = _engine.find_passes(target, kernel_cache.key(struct), TYPES[dtype])
        if addresses is None:
            addresses = map(_address, _compiled(cell, struct, dtype, target, kept))
        return Passes(*(Pass(each, (*each.arrays,), address) for each, address in zip(both, addresses, strict=True)))
    except (DerivationError, CannotCompileError) as reason:
        if isinstance(reason, CompilerError):
            code = code_of(cell)
            reason = f"{code.co_filename}:{code.co_firstlineno}: step of {cell.__name__}: {reason}"
        words = f"it was built without the {cell.name} cell, and cannot compile it: {reason}"
        if may_compile:
            warnings.warn(f"the reference runs the {cell.name} cell on the CPU: {words}", stacklevel=2)
        return words


def ahead(cell: type[Cell], dtype: torch.dtype, target: str, kept: Kept = ()) -> list[Path]:
    """A cell's libraries for an instruction set, which this processor need not have. The list is empty if the extension
    was built with the cell.

    Raises:
        CannotCompileError, DerivationError: the cell cannot be compiled.
    """
    _, struct = printed(cell, kept)
    built = _engine.find_passes(target, kernel_cache.key(struct), TYPES[dtype])
    return [] if built else _compiled(cell, struct, dtype, target, kept)


def printed(cell: type[Cell], kept: Kept) -> tuple[tuple[Layout, Layout], str]:
    """The layouts of a cell's two passes, and their printed struct."""
    both = layouts(cell, derive(cell, reset=True, lengths=True, kept=kept))
    return both, cpp_struct(cell, both)


def _compiled(cell: type[Cell], struct: str, dtype: torch.dtype, target: str, kept: Kept) -> list[Path]:
    texts = [_text(struct, target, f"{STRUCT}::{kind}", TYPES[dtype]) for kind in ("Forward", "Backward")]
    kept_too = f" and {', '.join(kept)}" if kept else ""
    return _libraries(texts, f"{cell.name}{kept_too} for {target}, {str(dtype).removeprefix('torch.')}")


def _text(struct: str, target: str, program: str, type: str) -> str:
    """The source of a library."""
    lines = [f'#include "target_{target}.h"', '#include "cell_library.h"', "SEQCELLS_CELL_BEGIN", struct]
    return "\n\n".join([*lines, "SEQCELLS_CELL_END", f"SEQCELLS_PASS({program}, {type})", ""])


def _compiler() -> tuple[str, ...] | None:
    """The command of the C++ compiler, or None if none may run or none exists."""
    return None if kernel_cache.why_not_allowed() else _systems_compiler()


@cache
def _systems_compiler() -> tuple[str, ...] | None:
    """The command in ``$CXX`` if it is set, else the first known compiler that exists."""
    own = os.environ.get("CXX")
    for command in [own] if own else ["c++", "g++", "clang++"]:
        words = shlex.split(command)
        if words and shutil.which(words[0]):
            return tuple(words)
    return None


def _flags() -> tuple[str, ...]:
    return *FLAGS, *shlex.split(os.environ.get("CXXFLAGS", ""))


def command() -> tuple[str, ...]:
    """The compiler and its options, for a shared library.

    Raises:
        CannotCompileError: there is no compiler, or the headers here are not the extension's.
    """
    compiler = _compiler()
    if compiler is None or why_not_compile():
        raise CannotCompileError(why_not_compile())
    return *compiler, *_flags()


@cache
def _version(compiler: tuple[str, ...]) -> str:
    return subprocess.run([*compiler, "--version"], capture_output=True, text=True).stdout


@cache
def _stamp() -> str:
    """The hash of the headers here. The extension has the hash of the headers that it was compiled with."""
    headers = sorted(HEADERS.glob("*.h"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in headers)).hexdigest()[:16]


def _libraries(texts: Sequence[str], what: str) -> list[Path]:
    """The libraries of some sources; missing libraries are compiled."""
    if _engine.headers != _stamp():
        raise CannotCompileError(why_not_compile())
    compiler, flags = _compiler(), _flags()
    keys = [kernel_cache.key(text, _engine.headers, *flags) for text in texts]
    if compiler is None:
        # Without a compiler, a library by any compiler will do: it fits these headers.
        _, there = kernel_cache.kept(".so")
        found = [next((path for path in there if path.name.startswith(f"{key}-")), None) for key in keys]
        if None in found:
            raise CannotCompileError(why_not_compile())
        return found
    names = [f"{key}-{kernel_cache.key(*compiler, _version(compiler))}.so" for key in keys]
    try:
        return kernel_cache.made(names, partial(_compile_missing, [*compiler, *flags], texts, names, what))
    except TimeoutError as reason:
        raise CannotCompileError(str(reason)) from None


def _compile_missing(
    command: Sequence[str], texts: Sequence[str], names: Sequence[str], what: str, folder: Path
) -> None:
    # Remove what a killed process has left for these libraries. Locks may belong to another folder, so nothing recent
    # is removed.
    for left in folder.glob(f".{Path(names[0]).stem}-*"):
        if time.time() - left.stat().st_mtime > kernel_cache.PATIENCE:
            shutil.rmtree(left, ignore_errors=True)
    wanted = [(text, folder / name) for text, name in zip(texts, names, strict=True) if not (folder / name).exists()]
    if wanted:
        print(f"seqcells: compiling {what}, once; this takes some seconds", file=sys.stderr, flush=True)
        _compile(command, wanted, f".{Path(names[0]).stem}-")


def _compile(command: Sequence[str], wanted: Sequence[tuple[str, Path]], prefix: str) -> None:
    """Compile in parallel, in a new folder whose name begins with ``prefix``. Finished libraries are moved in whole."""
    with tempfile.TemporaryDirectory(dir=wanted[0][1].parent, prefix=prefix) as aside:
        commands = []
        for text, path in wanted:
            source, made = Path(aside, f"{path.stem}.cpp"), Path(aside, path.name)
            source.write_text(text)
            commands.append([*command, f"-I{HEADERS}", str(source), "-o", str(made)])
        run_compilers(commands, aside)
        for _, path in wanted:
            os.replace(Path(aside, path.name), path)


def run_compilers(commands: Sequence[Sequence[str]], folder: str | Path) -> None:
    """Run commands of a compiler in parallel.

    Raises:
        CompilerError: one of the commands fails.
    """
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    running = [subprocess.Popen(command, **pipes, text=True, cwd=folder) for command in commands]
    said = [process.communicate()[1] for process in running]
    for process, words in zip(running, said, strict=True):
        if process.returncode:
            lines = [line for line in words.splitlines() if "error" in line] or words.splitlines()
            raise CompilerError(f"{process.args[0]} fails: {'; '.join(lines[:3]) or process.returncode}")


@cache
def _address(path: Path) -> int:
    """The address of a library's pass. Libraries stay loaded, because a late thread may still run their code after a
    call."""
    try:
        return ctypes.addressof(ctypes.c_char.in_dll(ctypes.CDLL(str(path)), "seqcells_pass"))
    except OSError as problem:
        raise CannotCompileError(f"{path} cannot be loaded: {problem}") from None
