"""``python -m benchmarks.integrations``: models of other packages before and after `seqcells.swap`.

make integrations                          the packages, our tests of them, and this command
python -m benchmarks.integrations --save   and keep the file among benchmarks/results
python -m benchmarks.integrations page     write docs/integrations.md from the last file there
"""

import argparse
import sys
from pathlib import Path

import torch

from .. import result_files
from .case import PACKAGES, cases
from .measure import learn, row
from .page import write
from .report import Report, show


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit status."""
    top = argparse.ArgumentParser(
        prog="python -m benchmarks.integrations",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("command", nargs="?", choices=("measure", "page"), default="measure")
    top.add_argument("--packages", nargs="+", choices=PACKAGES, default=[*PACKAGES], metavar="PACKAGE")
    top.add_argument("--frames", type=int, default=0, help="of RecurrentPPO, which learns by both (default: 0, not)")
    top.add_argument("--seeds", type=int, default=3, help="from which it learns (default: 3)")
    top.add_argument("--threads", type=int, default=torch.get_num_threads())
    top.add_argument("--samples", type=int, default=7)
    top.add_argument("--json", type=Path, metavar="PATH", help="write the results there")
    top.add_argument("--save", action="store_true", help="write them to benchmarks/results")
    options = top.parse_args(arguments)
    if options.command == "page":
        write(result_files.last(result_files.INTEGRATIONS))
        return 0
    torch.set_num_threads(options.threads)
    words = " ".join(["python -m benchmarks.integrations", *(sys.argv[1:] if arguments is None else arguments)])
    report = Report.made_here("cpu", options.threads, words)
    for package in options.packages:
        try:
            found = cases(package)
        except ImportError as why:
            report.absent[PACKAGES[package]] = str(why)
            continue
        report.rows += [row(package, case, options.samples) for case in found]
    for seed in range(options.seeds if options.frames else 0):
        learn(report, options.frames, seed)
    show(report)
    path = result_files.named(result_files.INTEGRATIONS, report.date, report.commit) if options.save else options.json
    if path:
        report.save(path)
        print(f"written to {path}")
    return 0 if report.rows else 1


if __name__ == "__main__":
    sys.exit(main())
