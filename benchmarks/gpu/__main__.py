"""``python -m benchmarks.gpu``: the measurements and tests for a GPU that is available for some minutes.

python -m benchmarks.gpu                              ten minutes; what out/gpu has already is continued
python -m benchmarks.gpu --seconds 240 --out FOLDER   four minutes, everything into FOLDER
python -m benchmarks.gpu --stages timing tests        these stages alone
python -m benchmarks.gpu --merge A.json B.json --into benchmarks/results/cuda-h200.json
python -m benchmarks.gpu --rehearse                   all of it without a GPU, interpreted, in tiny sizes

The command uses the Python that runs it and installs nothing. Beside torch, triton and numpy it imports pytest, for
the tests.
"""

import argparse
import os
import signal
import sys
from pathlib import Path

import torch

from .. import rival_wheels
from ..result_files import RESULTS
from . import merge, tasks
from .session import RESULT, Session, cores
from .stages import STAGES, run

ASKED_FOR = ("engine",)
"""Stages that run only if an option names them."""


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [stage.name for stage in STAGES]
    top.add_argument("--seconds", type=float, default=600.0, help="in all (default: 600)")
    top.add_argument("--out", type=Path, metavar="FOLDER", help="default: out/gpu; of a rehearsal out/gpu-rehearsal")
    top.add_argument("--stages", nargs="+", choices=names, metavar="STAGE", help=f"{', '.join(names)}")
    top.add_argument("--engine", action="store_true", help="build the CPU engine where it is missing")
    top.add_argument("--cores", type=int, default=cores(), help="processes at once (default: as many as cores)")
    top.add_argument("--rehearse", action="store_true", help="without a GPU; the figures mean nothing")
    top.add_argument("--wheels", type=Path, metavar="FOLDER", help="take rivals' wheels from there")
    top.add_argument("--prototype", type=Path, metavar="FILE", help="time the cluster plan beside this program in CUDA")
    top.add_argument("--merge", nargs="+", type=Path, metavar="FILE", help="no session: these result files in one")
    top.add_argument("--into", type=Path, metavar="FILE", help="with --merge: the one, continued if it is there")
    return top


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit status."""
    options = (top := parser()).parse_args(arguments)
    if options.merge or options.into:
        if not (options.merge and options.into):
            top.error("--merge and --into go together")
        return _merge(options)
    if not options.rehearse and not torch.cuda.is_available():
        print("no CUDA device here; --rehearse does without", file=sys.stderr)
        return 2
    folder = options.out or Path("out") / ("gpu-rehearsal" if options.rehearse else "gpu")
    if options.rehearse and RESULTS.resolve() in (folder.resolve(), *folder.resolve().parents):
        top.error(f"a rehearsal does not belong in {RESULTS}")
    if options.wheels:
        rival_wheels.use(options.wheels)
        os.environ[tasks.WHEELS] = sys.path[-1]
    try:
        session = Session(folder, options.seconds, options.rehearse, options.cores, options.prototype)
    except ValueError as problem:
        top.error(str(problem))
    wanted = options.stages or [stage.name for stage in STAGES if options.engine or stage.name not in ASKED_FOR]
    # SIGTERM is handled as Ctrl-C is: the processes that the session has started end with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    run(session, wanted, options.seconds)
    failed = [name for result in session.report.tests.values() for name in result.failed]
    print(f"written to {folder / RESULT}: {len(session.report.rows)} rows, {len(failed)} tests failed", flush=True)
    return 1 if failed else 0


def _merge(options: argparse.Namespace) -> int:
    try:
        whole = merge.write(options.merge, options.into, RESULTS)
    except (ValueError, OSError) as problem:
        print(problem, file=sys.stderr)
        return 2
    print(f"written to {options.into}: {len(whole.rows)} rows")
    return 0


if __name__ == "__main__":
    sys.exit(main())
