"""Programs that run without Python: a library with the layers of programs, for AOTInductor's packages in C++.

``torch._inductor.aoti_compile_and_package`` makes a package in which each layer is a call of our operator. A C++
program loads the library before the package, and needs neither Python nor seqcells. `library` makes the library, and so
does ``python -m seqcells.io.native program.pt2 libprogram.so`` from a file of torch.export.save.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import torch
from torch.export import ExportedProgram

from ..call.operators import SCHEMA, recurrence_of
from ..derive.expressions import DerivationError
from ..kernels import cpu

_ANY = 2
"""A placeholder for sizes that are known only when a program runs."""


def library(*programs: ExportedProgram, path: str | os.PathLike[str], targets: Sequence[str] | None = None) -> Path:
    """Make a shared library of torch's operator ``seqcells::recurrence``, with the layers of some programs.

    A process may load one such library, before any package, and only if it does not import seqcells: torch registers an
    operator once. The layers run forward only, on the CPU, for any number of time steps and sequences. Dtypes are
    float32, float64 and bfloat16. The C++ compiler makes the library, which takes some ten seconds.

    Args:
        programs: results of torch.export.export, from which the packages are made.
        path: the path of the library.
        targets: names of the instruction sets for which the library has kernels. The library uses the best one that a
            processor has. Default: the best instruction set of this processor, and ``"portable"``, which any processor
            runs

    Returns:
        The path.

    Raises:
        TypeError: a program is no ExportedProgram, or ``targets`` is no sequence of names.
        ValueError: the programs have no layers of seqcells. Or a layer has another dtype, is not on the CPU or has no
            kernels. Or a target is unknown, or ``targets`` is empty.
        RuntimeError: the engine is not built, or the compiler is missing or fails.
        OSError: the library cannot be written.
    """
    for program in programs:
        if not isinstance(program, ExportedProgram):
            raise TypeError(f"programs should be torch.export.ExportedProgram, got: {type(program).__name__}")
    if cpu.why_not_available():
        raise RuntimeError(cpu.why_not_available())
    from ..kernels.cpu import library as engine  # imported late, as the import needs the extension
    from ..kernels.cpu import native_operator
    from ..kernels.cpu.compiled import BASES, CannotCompileError

    wanted = (BASES.get(engine.target, engine.target), "portable") if targets is None else targets
    if isinstance(wanted, str):
        raise TypeError(f"targets should be a sequence of names, got: {wanted!r}")
    for target in wanted:
        if target not in cpu.SETS:
            raise ValueError(f"unknown target {target!r}: choose some of {', '.join(cpu.SETS)}")
    if not wanted:
        raise ValueError(f"targets should be some of {', '.join(cpu.SETS)}, got none")
    path = Path(path)
    if not path.resolve().parent.is_dir():
        raise FileNotFoundError(f"{path.parent} is no folder")
    nodes = [node for program in programs for node in _nodes(program)]
    if not nodes:
        raise ValueError("the programs have no layers of seqcells: nothing would be in the library")
    try:
        texts = native_operator.sources(SCHEMA, nodes, [each for each in reversed(cpu.SETS) if each in wanted])
    except DerivationError as reason:
        raise ValueError(f"no kernels run a layer of the programs: {reason}") from None
    try:
        return _compiled(texts, native_operator.SHARED, path)
    except CannotCompileError as reason:
        raise RuntimeError(f"the library cannot be made: {reason}") from None


def _nodes(program: ExportedProgram) -> Iterator[Any]:
    """The layers of a program, as records of `seqcells.kernels.cpu.native_operator`."""
    from ..kernels.cpu.native_operator import Node

    graphs = [each for each in program.graph_module.modules() if isinstance(each, torch.fx.GraphModule)]
    for node in (node for graph in graphs for node in graph.graph.nodes):
        if node.target != torch.ops.seqcells.recurrence.default:
            continue
        cell, hash, tensors, names, reverse, backend, *kept = node.args
        values = [tensor.meta["val"] for tensor in tensors]
        if values[0].device.type != "cpu":
            raise ValueError(f"a library is for the CPU, and a layer of the program is on {values[0].device}")
        like = [torch.empty([s if isinstance(s, int) else _ANY for s in v.shape], dtype=v.dtype) for v in values]
        layer = recurrence_of(cell, hash, like, names, reverse, backend, *kept)
        yield Node(cell, hash, tuple(names.split()), "".join(kept), reverse, layer)


def _compiled(texts: dict[str, str], shared: Sequence[str], path: Path) -> Path:
    """Compile the C++ files in parallel, link the library, and move it to its path by one rename."""
    from ..kernels.cpu.compiled import HEADERS, command, run_compilers

    torch_folder, compiler = Path(torch.__file__).parent, command()
    with tempfile.TemporaryDirectory(dir=path.resolve().parent, prefix=f".{path.name}-") as folder:
        for name, text in texts.items():
            Path(folder, name).write_text(text)
        files = [*texts, *(str(HEADERS / name) for name in shared)]
        includes = [f"-I{HEADERS}", f"-I{torch_folder / 'include'}"]
        objects = [f"{Path(file).stem}.o" for file in files]
        each = zip(files, objects, strict=True)
        run_compilers([[*compiler, *includes, "-c", file, "-o", made] for file, made in each], folder)
        # At run time the program's own copy of libtorch is used.
        torchs = [f"-L{torch_folder / 'lib'}", "-ltorch_cpu", "-pthread", "-ldl"]
        run_compilers([[*compiler, *objects, *torchs, "-o", path.name]], folder)
        os.replace(Path(folder, path.name), path)
    return path


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the library of saved programs. Returns the exit status: 0, or 1 if the library cannot be made."""
    parser = argparse.ArgumentParser(
        prog="python -m seqcells.io.native", description=(__doc__ or "").partition("\n\n")[0]
    )
    parser.add_argument("programs", nargs="+", type=Path, help="files of torch.export.save")
    parser.add_argument("library", type=Path, help="the shared library that is made")
    parser.add_argument("--target", action="append", choices=cpu.SETS, help="default: this processor's, and portable")
    options = parser.parse_args(arguments)
    try:
        programs = [torch.export.load(path) for path in options.programs]
        print(library(*programs, path=options.library, targets=options.target))
    except (OSError, RuntimeError, ValueError, BadZipFile) as reason:
        print(f"not made: {reason}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
