"""``python -m seqcells.compile module:Cell``: makes the kernels of a cell before its first use.

The kernels go into the cache (``SEQCELLS_CACHE``). A machine without a compiler can use a copy of the cache, with the
same version of this package. The cell is your own class or one of ``seqcells.cells``.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence

import torch

from .cell_argument import SPELLING, cell_named
from .cells import Cell
from .derive.expressions import DerivationError
from .derive.named_values import keeping
from .derive.transformed_cells import for_engines, transformed
from .kernels import cpu, triton

DTYPES = {"float32": torch.float32, "float64": torch.float64}
"""The dtypes of computations. Layers of float16 and bfloat16 compute in float32."""
TARGETS = *cpu.SETS, "triton"


def made(cell: type[Cell], target: str, dtype: str, kept: tuple[str, ...] = ()) -> str:
    """Make a cell's kernels for one target. Returns in words what was made.

    Raises:
        RuntimeError: the kernels cannot be made here.
        ValueError: the cell has no value with a name in ``kept``.
    """
    cell = for_engines(cell)
    if target == "triton":
        return _printed(cell, kept)
    if cpu.why_not_available():
        raise RuntimeError(cpu.why_not_available())
    from .kernels.cpu import compiled  # this import needs the extension

    try:
        paths = compiled.ahead(keeping(cell, kept) if kept else cell, DTYPES[dtype], target, kept)
    except (DerivationError, compiled.CannotCompileError) as reason:
        raise RuntimeError(str(reason)) from None
    return f"{', '.join(path.name for path in paths)} in {paths[0].parent}" if paths else "the extension has them"


def _printed(cell: type[Cell], kept: tuple[str, ...]) -> str:
    if not triton.INSTALLED:
        raise RuntimeError("triton is not installed")
    from .kernels.triton.host import printed_kernels  # it imports triton

    if not printed_kernels.is_staged(cell, kept):
        return "the package has them; Triton compiles at first use"
    why_not = printed_kernels.why_not(cell, kept)
    if why_not:
        raise RuntimeError(why_not)
    return "printed; Triton compiles at first use"


def here() -> list[str]:
    """The targets for which this machine has an engine."""
    found = []
    if not cpu.why_not_available():
        from .kernels.cpu import compiled, library

        found.append(compiled.BASES.get(library.target, library.target))
    return [*found, *(["triton"] if not triton.why_not_available() else [])]


def _lines(options: argparse.Namespace) -> Iterator[tuple[bool, str]]:
    """For each cell, target and dtype: whether kernels were made, and a line that says what was made."""
    for cell in options.cells:
        for target in options.target or here():
            for dtype in options.dtype if target != "triton" else ["all dtypes"]:
                begin = time.monotonic()
                try:
                    words, fine = made(transformed(cell, *options.ways), target, dtype, tuple(options.keep)), True
                except (RuntimeError, ValueError) as reason:
                    words, fine = f"not made: {reason}", False
                yield fine, f"{cell.name} for {target}, {dtype}: {words} ({time.monotonic() - begin:.1f} s)"


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the kernels that the arguments ask for. Returns 1 if some could not be made, else 0."""
    parser = argparse.ArgumentParser(
        prog="python -m seqcells.compile", description=(__doc__ or "").partition("\n\n")[0]
    )
    parser.add_argument("cells", nargs="+", type=cell_named, metavar="module:Cell", help=SPELLING)
    parser.add_argument("--target", nargs="+", choices=TARGETS, help="default: those of this machine")
    parser.add_argument("--dtype", nargs="+", choices=DTYPES, default=["float32"], help="default: float32")
    ways = "what is done to the cell: recurrent_dropout, zoneout(h,c), projection(1), which is of any size"
    parser.add_argument("--with", dest="ways", nargs="+", default=[], metavar="WAY", help=ways)
    parser.add_argument("--keep", nargs="+", default=[], help="values of all steps that a call will keep")
    options = parser.parse_args(arguments)
    if not (options.target or here()):
        print("no kernels can be made here: the CPU engine is not built, and there is no GPU", file=sys.stderr)
        return 1
    failed = False
    for fine, line in _lines(options):
        failed |= not fine
        print(line, flush=True)
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
