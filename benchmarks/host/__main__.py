"""``python -m benchmarks.host``: the host's work for one call before a kernel runs; no GPU is needed.

python -m benchmarks.host                       count and time, print
python -m benchmarks.host --json out/host.json  and write a file, which grows by each kind of call
python -m benchmarks.host --save                and keep it among benchmarks/results
python -m benchmarks.host --counts              nothing is timed
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import torch

from seqcells.backends import BACKENDS

from .. import result_files, run
from . import emulated_gpu, measure, replace_extension
from .calls import CELLS, KINDS, STUB, TORCH, Kind, call
from .report import Report, Row, show

RIVALS = (STUB, TORCH)


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="python -m benchmarks.host", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [kind.name for kind in KINDS]
    top.add_argument("--kinds", nargs="+", choices=names, default=names, metavar="KIND", help=", ".join(names))
    top.add_argument("--cells", nargs="+", choices=tuple(CELLS), default=list(CELLS), metavar="CELL")
    top.add_argument("--samples", type=int, default=40, help="of each call (default: 40)")
    top.add_argument("--counts", action="store_true", help="count, but do not time")
    top.add_argument("--json", type=Path, metavar="PATH", help="write the results there")
    top.add_argument("--save", action="store_true", help="write them to benchmarks/results, named by date and commit")
    return top


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit status."""
    options = parser().parse_args(arguments)
    torch.set_num_threads(1)
    here = torch.cuda.is_available()
    words = " ".join(["python -m benchmarks.host", *(sys.argv[1:] if arguments is None else arguments)])
    report = Report.begun("cuda" if here else "cpu", words, absent=not here)
    providers, launches = _providers(here, report.notes)
    path = result_files.named(result_files.HOST, report.date, report.commit) if options.save else options.json
    for kind in (kind for kind in KINDS if kind.name in options.kinds):
        for cell in options.cells:
            for device, names in providers.items():
                report.rows += rows(kind, cell, device, names, launches, 0 if options.counts else options.samples)
            if path:
                report.save(path)
    report.complete = True
    show(report)
    if path:
        report.save(path)
        print(f"written to {path}")
    return 0


def _providers(here: bool, notes: list[str]) -> tuple[dict[str, list[str]], list[Any]]:
    """The providers by device, and the list of launches on an emulated GPU, if no GPU is ``here``."""
    # the GPU comes first, because it is rarely available
    devices = {"cuda": ["triton"], "cpu": ["cpu"]} if here else {"cpu": ["cpu"]}
    launches: list[Any] = []
    if not here and emulated_gpu.why_not():
        notes.append(f"no Triton engine: {emulated_gpu.why_not()}")
    elif not here:
        launches = emulated_gpu.act_out()
        devices["cpu"].append("triton")
        notes.append("no GPU is here: the Triton engine's launches do nothing, and its products are the CPU's")
    for backends in devices.values():
        for backend in [each for each in backends if BACKENDS[each].why_not_available()]:
            notes.append(f"no backend {backend!r}: {BACKENDS[backend].why_not_available()}")
            backends.remove(backend)
    return {device: [*backends, *RIVALS] for device, backends in devices.items()}, launches


def rows(kind: Kind, cell: str, device: str, names: list[str], launches: list[Any], samples: int) -> list[Row]:
    """The rows of all providers for one kind of call: counted, and timed in turns if ``samples`` is not 0."""
    with torch.set_grad_enabled(kind.trains):
        found = {name: _counted(kind, cell, device, name, launches) for name in names}
        if samples:
            _time(found, kind, cell, device, samples)
    return [*found.values()]


def _counted(kind: Kind, cell: str, device: str, name: str, launches: list[Any]) -> Row:
    """A row without times."""
    with replace_extension.counted() as into_extension:
        made = call(kind, cell, name, device)
        before = len(launches) + len(into_extension)
        made.run()
        launched = len(launches) + len(into_extension) - before
        seen = measure.counts(made.run, device)
    provider = name if name in RIVALS else f"seqcells {name}"
    numbers = sum(seen.operators.values()), seen.allocations, launched + seen.launches
    return Row(kind.name, cell, device, provider, *numbers, seen.operators, made.plan)


def _time(found: dict[str, Row], kind: Kind, cell: str, device: str, samples: int) -> None:
    """Fill in the times of the rows, which are given by provider."""
    with replace_extension.idle():
        calls = {(name, ""): call(kind, cell, name, device).run for name in found}
    if "cpu" in found:
        calls["cpu", "with kernels"] = call(kind, cell, "cpu", device).run
    figures = {which: run.figure(times, 1) for which, times in measure.seconds(calls, samples, device).items()}
    for name, row in found.items():
        row.figure, row.with_kernels = figures[name, ""], figures.get((name, "with kernels"))
        row.to_stub = row.figure.median / figures[STUB, ""].median


if __name__ == "__main__":
    sys.exit(main())
