"""The resources of a GPU that every Triton kernel takes, compiled ahead of time; no GPU is needed.

python -m benchmarks.resources --cells lstm gru --dtypes bfloat16            some kernels, for Hopper
python -m benchmarks.resources --targets sm_80 sm_90 sm_100 gfx942 --json out/resources.json    all of them

Each kernel has one row, under the first case that launches it. A file of results is written with --json.
"""

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from seqcells.cells import REGISTRY

from .. import machine, progress, tables
from ..case import DTYPES

if TYPE_CHECKING:
    from .cases import Case
    from .launches import Launched

HEADER = ("kernel", "pass", "cell", "dtype", "H", "options", "tile", "warps", "registers", "stack", "shared")
HEADER += ("loop bytes", "code", "loop")
RIGHT = {4, 7, 8, 9, 10, 11}


class Kernel(NamedTuple):
    """A kernel that an engine launches, and for which case."""

    target: str
    case: "Case"
    during: str
    """The pass that launches it, one of `cases.PASSES`."""
    launched: "Launched"

    def __str__(self) -> str:
        return f"{self.target} {self.launched.name} {self.case}"


@dataclasses.dataclass
class Row:
    """A `Kernel` and its `binaries.Resources`, in the form of the result file."""

    target: str
    kernel: str
    during: str
    backend: str
    cell: str
    dtype: str
    hidden: int
    options: str
    tile: dict[str, int | list[int]]
    error: str | None = None
    """Why the kernel could not be compiled; the fields below are then 0."""
    registers: int = 0
    stack: int = 0
    shared: int = 0
    limit: int = 0
    """The largest ``shared`` on the target."""
    warps: int = 0
    instructions: dict[str, int] = dataclasses.field(default_factory=dict)
    loop: dict[str, int] = dataclasses.field(default_factory=dict)
    loop_bytes: int = 0
    seconds: float = 0.0
    """Seconds to compile and read the kernel; few if Triton's cache had it."""


def kernels(cases: "Sequence[Case]", targets: Sequence[str]) -> list[Kernel]:
    """Each kernel once."""
    from .launches import TARGETS

    found = {}
    for target in targets:
        for case in cases:
            if case.why_not(TARGETS[target]):
                continue
            for during, launched in case.launches(TARGETS[target]):
                found.setdefault((target, launched.function, launched.key), Kernel(target, case, during, launched))
    return list(found.values())


def measure(kernel: Kernel, mix: bool) -> Row:
    """Compile a kernel and read its code."""
    from .binaries import compiled
    from .launches import TARGETS

    case, launched = kernel.case, kernel.launched
    row = Row(
        kernel.target,
        launched.name,
        kernel.during,
        case.backend,
        case.cell_name,
        case.dtype_name,
        case.hidden,
        case.variant,
        launched.tile,
        limit=TARGETS[kernel.target].shared_memory,
    )
    began = time.monotonic()
    try:
        resources = compiled(launched, TARGETS[kernel.target], mix)
    except Exception as error:  # any compiler error: the other rows are still wanted
        return dataclasses.replace(row, error=f"{type(error).__name__}: {error}")
    return dataclasses.replace(row, **resources._asdict(), seconds=round(time.monotonic() - began, 2))


def measured(found: list[Kernel], mix: bool, jobs: int, advance: Callable[[int, int, Any], None]) -> Iterator[Row]:
    """Yield a row for each kernel, from ``jobs`` processes; ``advance`` is called as each row arrives."""
    # Forked, because compile-time constants may be functions, which cannot be pickled.
    with get_context("fork").Pool(jobs, _begin, (found, mix)) as pool:
        for index, row in enumerate(pool.imap(_measure, range(len(found)))):
            advance(index, len(found), found[index])
            yield row


def _begin(found: list[Kernel], mix: bool) -> None:
    global _given
    _given = found, mix


def _measure(index: int) -> Row:
    found, mix = _given
    return measure(found[index], mix)


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="python -m benchmarks.resources", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    top.add_argument("--targets", nargs="+", default=["sm_90"], help="sm_80 sm_90 sm_100 gfx942 (default: sm_90)")
    top.add_argument("--cells", nargs="+", choices=tuple(REGISTRY), default=list(REGISTRY), metavar="CELL")
    top.add_argument("--dtypes", nargs="+", default=["bfloat16", "float16", "float32", "float64"], metavar="DTYPE")
    top.add_argument("--hidden", nargs="+", type=int, default=[512, 650], metavar="H")
    top.add_argument("--options", nargs="+", metavar="A+B", help="plain boundaries+projection … (default: all)")
    top.add_argument("--backends", nargs="+", metavar="BACKEND", help="default: each plan")
    top.add_argument("--no-instructions", action="store_true", help="do not count them: it takes as long as compiling")
    top.add_argument("--jobs", type=int, default=2, help="processes (default: 2)")
    top.add_argument("--json", type=Path, metavar="PATH", help="write the rows there")
    return top


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit status."""
    options = (top := parser()).parse_args(arguments)
    if find_spec("triton") is None:
        print("triton is not installed", file=sys.stderr)
        return 2
    from . import cases, launches

    known = {"targets": launches.TARGETS, "dtypes": DTYPES, "backends": cases.TRITONS}
    for name, there in known.items():
        if unknown := {*(getattr(options, name) or ())} - {*there}:
            top.error(f"--{name}: not {', '.join(sorted(unknown))}: choose from {', '.join(there)}")
    given = {"cells": options.cells, "dtypes": options.dtypes, "hidden": options.hidden}
    given |= {"variants": options.options or cases.VARIANTS, "backends": options.backends or cases.TRITONS}
    found = kernels(cases.cases(**given), options.targets)
    with progress.bar() as advance:
        rows = list(measured(found, not options.no_instructions, options.jobs, advance))
    show(rows)
    if options.json:
        described = {"triton": machine.versions()["triton"], "commit": machine.commit(), "date": machine.now()}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({**described, "rows": [dataclasses.asdict(row) for row in rows]}, indent=1))
    return 1 if any(row.error for row in rows) else 0


def show(rows: list[Row]) -> None:
    """Print a table for each target."""
    for target in dict.fromkeys(row.target for row in rows):
        here = [row for row in rows if row.target == target]
        title = f"{target}, at most {here[0].limit} bytes of shared memory a block"
        tables.table(title, HEADER, [_line(row) for row in here], RIGHT)


def _line(row: Row) -> list[str]:
    code, loop = (" ".join(f"{k}={n}" for k, n in mix.items() if n) for mix in (row.instructions, row.loop))
    tile = "×".join(map(str, row.tile.values()))
    numbers = map(str, (row.warps, row.registers, row.stack, row.shared, row.loop_bytes))
    words = row.kernel, row.during, row.cell, row.dtype, str(row.hidden), row.options, tile
    return [*words, *numbers, row.error or code, loop]


if __name__ == "__main__":
    sys.exit(main())
