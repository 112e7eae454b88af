"""``python -m benchmarks``: run the benchmark, and report on its result files.

python -m benchmarks                                    the quick run: some minutes on two cores
python -m benchmarks --preset full --json out/cpu.json  all shapes, all providers
python -m benchmarks --device cuda --preset short       three minutes on a GPU, saved after every row
python -m benchmarks --suite loaded --loads 0 1 2       beside 0, 1 and 2 busy processes a core
python -m benchmarks --aa                             can the timing be trusted on this machine?
python -m benchmarks report                             RESULTS.md and the README's table, from benchmarks/results
python -m benchmarks compare before.json after.json
"""

import argparse
import sys
import time
from pathlib import Path

import torch

from . import presets, result_files
from .case import DTYPES
from .providers import PROVIDERS
from .suites import SUITES


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = top.add_subparsers(dest="command", metavar="report | compare")
    top.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    top.add_argument("--preset", choices=tuple(presets.PRESETS), default="quick")
    top.add_argument("--suite", nargs="+", choices=tuple(SUITES), help="default: the preset's")
    top.add_argument("--cells", nargs="+", help="lstm gru rnn_tanh … (default: the preset's)")
    top.add_argument("--shapes", nargs="+", help="names of sets, or B1xH128xT100 …")
    top.add_argument("--dtypes", nargs="+", choices=tuple(DTYPES))
    top.add_argument("--providers", nargs="+", choices=tuple(PROVIDERS), metavar="PROVIDER", help=", ".join(PROVIDERS))
    top.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of every provider on the CPU")
    top.add_argument(
        "--loads", nargs="+", type=load, metavar="LOAD", help="busy processes a core, in suites under load (1 0 2)"
    )
    top.add_argument("--budget", type=float, metavar="SECONDS", help="leave out what does not fit")
    top.add_argument("--json", type=Path, metavar="PATH", help="write the results there")
    top.add_argument("--save", action="store_true", help="write them to benchmarks/results, named by device and date")
    top.add_argument("--plots", type=Path, metavar="FOLDER", help="draw them there")
    top.add_argument("--aa", action="store_true", help="only torch.nn against itself; fails beyond 1.0 ± 0.1")
    top.add_argument("--no-rooflines", action="store_true", help="do not measure what the machine can do")
    top.add_argument("--no-graphs", action="store_true", help="CUDA: do not capture graphs")
    top.add_argument("--wheels", type=Path, metavar="FOLDER", help="take rivals' wheels from there")
    write = commands.add_parser("report", help="rewrite RESULTS.md and the README's table from result files")
    write.add_argument("results", nargs="*", type=Path, help="default: all in benchmarks/results")
    write.add_argument("--readme", type=Path, default=result_files.RESULTS.parents[1] / "README.md")
    write.add_argument("--page", type=Path, default=result_files.RESULTS.parent / "RESULTS.md")
    write.add_argument("--plots", type=Path, default=result_files.RESULTS, help="draw them there")
    two = commands.add_parser("compare", help="two runs side by side")
    two.add_argument("before", type=Path)
    two.add_argument("after", type=Path)
    return top


def load(text: str) -> float:
    """Parse and check the argument of ``--loads``."""
    value = float(text)
    if not 0 <= value < 100:
        raise argparse.ArgumentTypeError(f"{text} busy processes a core")
    return value


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit status."""
    options = parser().parse_args(arguments)
    if options.command == "report":
        from . import report

        return report.write(options.results or result_files.reports(), options.readme, options.page, options.plots)
    if options.command == "compare":
        from . import compare

        return compare.show(options.before, options.after)
    return measure(options)


def measure(options: argparse.Namespace) -> int:
    """Plan the cases, run them, print the report and save it."""
    from . import progress, rival_wheels, rooflines, run, tables

    began = time.monotonic()
    if options.device == "cuda" and not torch.cuda.is_available():
        print("no CUDA device here", file=sys.stderr)
        return 2
    if options.wheels:
        rival_wheels.use(options.wheels)
    plan = presets.plan(options)
    words = " ".join(["python -m benchmarks", *sys.argv[1:]])
    measured = (
        {} if options.no_rooflines or options.aa else rooflines.measure(options.device, options.threads, plan.dtypes)
    )
    report = run.start(options.device, options.threads, words, measured)
    path = options.json
    if options.save:
        path = result_files.named(options.device, report.date, report.commit)
    plan.timer.deadline = began + plan.budget if plan.budget else None
    with plan.timer as timer, progress.bar() as advance:
        run.run(report, timer, plan.cases, path, advance)
    tables.print_report(report)
    if path:
        print(f"written to {path}" if report.aa["cases"] else f"{path} not written")
    if options.plots:
        from . import plots

        plots.draw(report, options.plots)
    trusted = report.aa.get("within") if options.aa else report.aa["cases"]
    return 0 if trusted else 1


if __name__ == "__main__":
    sys.exit(main())
