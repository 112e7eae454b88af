"""A cell's passes: in the extension, or compiled at first use, a library for each pass, which the cache keeps.

A pass's key is what it is made of, the printed cell and the headers, never the cell's name: a cell that is defined
once more gets kernels of its own. With ``SEQCELLS_COMPILE=never`` no compiler runs, and cells of which there are no
libraries are left to the reference; ``$CXX`` is the compiler, and ``$CXXFLAGS`` are options besides ours.
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
from ...derive import build
from ...derive.derivation import derive
from ...derive.expressions import DerivationError
from ...derive.layout import Layout, layouts
from ...derive.print_loop import STRUCT, cpp_struct
from ...derive.trace import code_of
from . import _engine, library

HEADERS = Path(__file__).parent
BASES = {"amxbf16": "avx512", "avx512bf16": "avx512"}
"""Instruction sets that add products to another, whose cells they run."""
TYPES = {torch.float32: "float", torch.float64: "double"}
FLAGS = ("-std=c++17", "-O3", "-fno-math-errno", "-g0", "-fvisibility=hidden", "-Wno-psabi", "-fPIC", "-shared")


class Pass(NamedTuple):
    """A compiled pass: where its values are, the names of its arrays in order, the address of what the library has."""

    layout: Layout
    arrays: tuple[str, ...]
    address: int


class Passes(NamedTuple):
    """Both passes of a cell, for one instruction set and the dtype that is computed in."""

    forward: Pass
    backward: Pass


class CannotCompileError(Exception):
    """Why there is no library of a cell."""


class CompilerError(CannotCompileError):
    """What the compiler says of a cell, in its first words."""


Kept = tuple[str, ...]
"""The names of a cell's results that are kept of all steps."""


def why_not(cell: type[Cell], dtype: torch.dtype) -> str | None:
    """Why a cell cannot run, or None; it is compiled for that, with a line on stderr, unless it was before."""
    found = _found(cell, library.WORKING[library.precision(dtype)])
    return found if isinstance(found, str) else None


def unable() -> str | None:
    """Why nothing can be compiled here, or None."""
    if build.forbidden():
        return build.forbidden()
    if _engine.headers != _stamp():
        return "the extension was built from other headers than these: build it once more"
    if _compiler():
        return None
    own = os.environ.get("CXX")
    return f"no C++ compiler was found: {f'$CXX is {own!r}' if own else 'neither c++, g++ nor clang++'}"


def report() -> list[str]:
    """For `seqcells.info`: by what cells are compiled, and what is there of them."""
    compiler, why_not = _compiler(), unable()
    if why_not or compiler is None:
        lines = [f"compiler: none in use, {why_not}"]
    else:
        lines = [f"compiler: {shlex.join(compiler)}, {_version(compiler).partition(chr(10))[0]}"]
    folder, there = build.kept(".so")
    size = sum(path.stat().st_size for path in there)
    return [*lines, f"kept in {folder}: {len(there)} libraries, {size >> 10} KiB"]


def passes(cell: type[Cell], dtype: torch.dtype, kept: Kept = ()) -> Passes:
    """A cell's passes, computed in a dtype, float32 or float64, of which forward leaves the ``kept`` results.

    Raises:
        RuntimeError: it cannot be compiled; see `why_not`.
    """
    found = _found(cell, dtype, kept)
    if isinstance(found, str):
        raise RuntimeError(f"the CPU engine cannot run the {cell.name} cell: {found}")
    return found


def _found(cell: type[Cell], dtype: torch.dtype, kept: Kept = ()) -> Passes | str:
    may_compile = build.forbidden() is None
    return _passes_or_reason(cell, dtype, BASES.get(library.target, library.target), kept, may_compile)


@cache
def _passes_or_reason(cell: type[Cell], dtype: torch.dtype, target: str, kept: Kept, may_compile: bool) -> Passes | str:
    try:
        both, struct = printed(cell, kept)
        addresses = _engine.find_passes(target, build.key(struct), TYPES[dtype])
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
    """A cell's libraries for an instruction set, which this processor need not have; none where the extension was built
    with the cell.

    Raises:
        CannotCompileError, DerivationError: it cannot be compiled.
    """
    _, struct = printed(cell, kept)
    built = _engine.find_passes(target, build.key(struct), TYPES[dtype])
    return [] if built else _compiled(cell, struct, dtype, target, kept)


def printed(cell: type[Cell], kept: Kept) -> tuple[tuple[Layout, Layout], str]:
    """A cell's passes laid out, and their text."""
    both = layouts(cell, derive(cell, reset=True, lengths=True, kept=kept))
    return both, cpp_struct(cell, both)


def _compiled(cell: type[Cell], struct: str, dtype: torch.dtype, target: str, kept: Kept) -> list[Path]:
    texts = [_text(struct, target, f"{STRUCT}::{kind}", TYPES[dtype]) for kind in ("Forward", "Backward")]
    kept_too = f" and {', '.join(kept)}" if kept else ""
    return _libraries(texts, f"{cell.name}{kept_too} for {target}, {str(dtype).removeprefix('torch.')}")


def _text(struct: str, target: str, program: str, type: str) -> str:
    """A library's source."""
    lines = [f'#include "target_{target}.h"', '#include "unit.h"', "SEQCELLS_UNIT_BEGIN", struct]
    return "\n\n".join([*lines, "SEQCELLS_UNIT_END", f"SEQCELLS_PASS({program}, {type})", ""])


def _compiler() -> tuple[str, ...] | None:
    """The command of the C++ compiler that may run; None where there is none."""
    return None if build.forbidden() else _systems_compiler()


@cache
def _systems_compiler() -> tuple[str, ...] | None:
    """``$CXX`` before others."""
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
        CannotCompileError: there is none, or its headers are not those of the extension.
    """
    compiler = _compiler()
    if compiler is None or unable():
        raise CannotCompileError(unable())
    return *compiler, *_flags()


@cache
def _version(compiler: tuple[str, ...]) -> str:
    return subprocess.run([*compiler, "--version"], capture_output=True, text=True).stdout


@cache
def _stamp() -> str:
    """Of the headers here; the extension has that of those which it was compiled with."""
    headers = sorted(HEADERS.glob("*.h"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in headers)).hexdigest()[:16]


def _libraries(texts: Sequence[str], what: str) -> list[Path]:
    """The libraries of some sources, of which the cache lacks some or none."""
    if _engine.headers != _stamp():
        raise CannotCompileError(unable())
    compiler, flags = _compiler(), _flags()
    keys = [build.key(text, _engine.headers, *flags) for text in texts]
    if compiler is None:
        # Whoever compiled it, elsewhere or before: it fits to these headers.
        _, there = build.kept(".so")
        found = [next((path for path in there if path.name.startswith(f"{key}-")), None) for key in keys]
        if None in found:
            raise CannotCompileError(unable())
        return found
    names = [f"{key}-{build.key(*compiler, _version(compiler))}.so" for key in keys]
    try:
        return build.made(names, partial(_compile_missing, [*compiler, *flags], texts, names, what))
    except TimeoutError as reason:
        raise CannotCompileError(str(reason)) from None


def _compile_missing(
    command: Sequence[str], texts: Sequence[str], names: Sequence[str], what: str, folder: Path
) -> None:
    # What a killed process has left of these. Locks may be another folder's: nothing that is young is touched.
    for left in folder.glob(f".{Path(names[0]).stem}-*"):
        if time.time() - left.stat().st_mtime > build.PATIENCE:
            shutil.rmtree(left, ignore_errors=True)
    wanted = [(text, folder / name) for text, name in zip(texts, names, strict=True) if not (folder / name).exists()]
    if wanted:
        print(f"seqcells: compiling {what}, once; this takes some seconds", file=sys.stderr, flush=True)
        _compile(command, wanted, f".{Path(names[0]).stem}-")


def _compile(command: Sequence[str], wanted: Sequence[tuple[str, Path]], prefix: str) -> None:
    """Side by side, in a folder of their own, whose name begins with ``prefix``; each is moved in whole."""
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
    """Commands of a compiler, side by side.

    Raises:
        CompilerError: one of them fails.
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
    """That of a library's pass. Libraries stay loaded: a late thread may run what a call has left."""
    try:
        return ctypes.addressof(ctypes.c_char.in_dll(ctypes.CDLL(str(path)), "seqcells_pass"))
    except OSError as problem:
        raise CannotCompileError(f"{path} cannot be loaded: {problem}") from None
