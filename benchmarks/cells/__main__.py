"""``python -m benchmarks.cells``: every cell's layer beside a loop in torch: torchrecurrent's layer, if it has the
cell.

python -m benchmarks.cells                            all cells: some minutes, and the compiler's time at first use
python -m benchmarks.cells --cells LEM MGU            some cells, by the names of their classes
python -m benchmarks.cells --save                     and keep the file among benchmarks/results
python -m benchmarks.cells page                       write docs/cells.md, with the times of the last file there
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from .. import result_files, run
from ..host import measure
from ..shapes import Shape
from . import page
from .modules import ERROR, Trio, every_name, trio
from .report import Report, Row, show

SHAPES = ("B1xH128xT100", "B8xH128xT100", "B32xH256xT100")
SAMPLE = 5e-3
"""The least seconds of a sample; a sample has at least one call."""


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="python -m benchmarks.cells", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    top.add_argument("command", nargs="?", choices=("measure", "page"), default="measure")
    top.add_argument("--cells", nargs="+", choices=every_name(), default=every_name(), metavar="CELL")
    top.add_argument("--shapes", nargs="+", type=Shape.parse, default=[Shape.parse(each) for each in SHAPES])
    top.add_argument("--threads", type=int, default=torch.get_num_threads())
    top.add_argument("--samples", type=int, default=5, help="of each call (default: 5)")
    top.add_argument("--json", type=Path, metavar="PATH", help="write the results there")
    top.add_argument("--save", action="store_true", help="write them to benchmarks/results, named by date and commit")
    return top


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit status."""
    options = parser().parse_args(arguments)
    if options.command == "page":
        page.write(result_files.last(result_files.CELLS))
        return 0
    torch.set_num_threads(options.threads)
    words = " ".join(["python -m benchmarks.cells", *(sys.argv[1:] if arguments is None else arguments)])
    report = Report.made_here("cpu", options.threads, words)
    path = result_files.named(result_files.CELLS, report.date, report.commit) if options.save else options.json
    for name in options.cells:
        for shape in options.shapes:
            measure_case(report, name, shape, options.samples)
        if path:
            report.save(path)
    report.complete = True
    show(report)
    if path:
        report.save(path)
        print(f"written to {path}")
    return 1 if report.wrong else 0


def measure_case(report: Report, name: str, shape: Shape, samples: int) -> None:
    """Add the rows of one cell and shape to a report."""
    case = trio(name, shape)
    for mode, calls in (("inference", case.call), ("training", case.training)):
        error = case.error(gradients=mode == "training")
        if not error < ERROR:
            report.wrong.append(f"{name} {mode} {shape}: {error:.1e} from {case.rival_name}")
            continue
        figures = timed({who: calls(who) for who in ("ours", "rival", "lstm")}, samples)
        report.rows.append(_row(case, name, shape, mode, error, figures))


def _row(case: Trio, name: str, shape: Shape, mode: str, error: float, figures: dict[str, run.Figure]) -> Row:
    with torch.set_grad_enabled(mode == "training"):
        backend = case.ours.plan(case.input).backend
    base, options = case.ours.cell.base.options, case.ours.cell.options
    told = {option: str(value) for option, value in options.items() if value is not base[option]}
    return Row(
        name, told, *shape, mode, backend, case.rival_name, error, figures["ours"], figures["rival"], figures["lstm"]
    )


def timed(calls: dict[str, Callable[[], object]], samples: int) -> dict[str, run.Figure]:
    """Time the calls, which take turns."""
    in_a_row = {}
    for who, call in calls.items():
        for _ in range(3):  # warm-up: the first calls also compile and prepare
            began = time.perf_counter()
            call()
        in_a_row[who] = max(1, round(SAMPLE / (time.perf_counter() - began)))
    found = measure.seconds(calls, samples, "cpu", in_a_row)
    return {who: run.figure(times, 1) for who, times in found.items()}


if __name__ == "__main__":
    sys.exit(main())
