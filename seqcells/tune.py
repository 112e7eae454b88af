"""``python -m seqcells.tune``: measures on this machine what `seqcells.estimates` chooses by, and keeps the table.

A coarse grid comes first, then a finer one, all in float32, then the same in bfloat16 as far as time allows: a run that
is cut short keeps a table that tells something of every kind of call.
"""

import argparse
import datetime
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from itertools import product
from pathlib import Path

import torch

from . import cache, estimates, machine, results
from .cell_modules import GRUCell, LSTMCell
from .kernels import cpu
from .layers import GRU, LSTM
from .table import BACKENDS, Point, Table
from .version import __version__

MODULES = {"lstm": (LSTM, LSTMCell), "gru": (GRU, GRUCell)}
"""The layer and the cell module of each cell."""
DTYPES = ("float32", "bfloat16")
KINDS = (("layers", 32), ("layers", 1), ("step", 1))
"""Forms, and steps of each."""
ROWS, HIDDEN = (1, 4, 16, 64), (64, 128, 256, 512)
COARSE = [(rows, hidden) for rows in (1, 64, 16) for hidden in (128, 512)]
"""Rows and hidden units that are measured first."""

POINT_SECONDS = 0.1
"""What the timing of a point should take, if two rounds do not take longer."""
TURN_SECONDS = 0.005
MOST_CALLS, MOST_ROUNDS = 5, 9
SETTLE_SECONDS = 0.002
"""Between two backends: the threads of torch's OpenMP go on spinning for a while after a call."""

Run = Callable[[], object]


def points() -> Iterator[Point]:
    """All points of the grid, the most telling first: coarse before fine, and float32 before bfloat16."""
    fine = [each for each in product(ROWS, HIDDEN) if each not in COARSE]
    for dtype, places in product(DTYPES, (COARSE, fine)):
        for (rows, hidden), training, cell, (form, steps) in product(places, (False, True), MODULES, KINDS):
            yield Point(cell, form, training, dtype, steps, rows, hidden)


def measure(wanted: Sequence[Point], seconds: float, tell: Callable[[str], None]) -> Table:
    """A table of as many of the points as the time allows, in their order, at least of one.

    Args:
        wanted: the points.
        seconds: the limit; the point that is being measured when it is reached is finished.
        tell: is given a line for each point.
    """
    found: dict[Point, dict[str, float | None]] = {}
    start = time.perf_counter()
    for point in wanted:
        if found and time.perf_counter() - start >= seconds:
            tell(f"out of time after {len(found)} of {len(wanted)} points")
            break
        found[point] = timed({backend: runner(point, backend) for backend in BACKENDS})
        by = [f"{backend} {'fails' if s is None else f'{s * 1e6:.1f} µs'}" for backend, s in found[point].items()]
        tell(f"{in_words(point)}: {', '.join(by)}")
    return Table(
        machine_class=machine.machine_class(estimates.instruction_set()),
        processor=machine.processor(),
        threads=torch.get_num_threads(),
        versions={"seqcells": __version__, "torch": torch.__version__, "python": platform.python_version()},
        date=datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        commit=_commit(),
        source="seqcells.tune",
        complete=len(found) == len(wanted),
        points=found,
    )


def in_words(point: Point) -> str:
    """The point as a line names it."""
    kind = f"{point.dtype} {'training' if point.training else 'inference'} {point.cell} {point.form}"
    return f"{kind} B{point.rows} H{point.hidden} T{point.steps}"


def runner(point: Point, backend: str) -> Run:
    """What makes one call of the point by a backend, forward or forward and backward, its input and weights random."""
    layer, cell = MODULES[point.cell]
    dtype = getattr(torch, point.dtype)
    rows, hidden, steps = point.rows, point.hidden, point.steps
    module = (cell if point.form == "step" else layer)(hidden, hidden, dtype=dtype, backend=backend)
    shape = (rows, hidden) if point.form == "step" else (steps, rows, hidden)
    input, hx = torch.randn(shape, dtype=dtype), None
    if steps == 1:  # whoever makes single steps carries the states
        states = [torch.randn(shape, dtype=dtype) for _ in module.cell.states]
        hx = states[0] if len(states) == 1 else tuple(states)

    def infer() -> object:
        with torch.no_grad():
            return module(input, hx)

    def train() -> object:
        output = module(input, hx)
        output = output if isinstance(output, torch.Tensor) else output[0]
        return torch.autograd.grad(output, leaves, ones)

    leaves, ones = [input.requires_grad_(point.training), *module.parameters()], torch.ones_like(input)
    return train if point.training else infer


def timed(runs: dict[str, Run]) -> dict[str, float | None]:
    """The median seconds of each, None for one that raises RuntimeError. They are timed in turns."""
    times: dict[str, list[float]] = {}
    calls = {}
    for name, run in runs.items():
        try:
            first = [_seconds(run) for _ in range(3)]  # what is prepared for calls like one is so at the third
        except RuntimeError:
            continue
        times[name], calls[name] = [], max(1, min(MOST_CALLS, int(TURN_SECONDS / min(first))))
    start, rounds = time.perf_counter(), 0
    while rounds < 2 or (rounds < MOST_ROUNDS and time.perf_counter() - start < POINT_SECONDS):
        rounds += 1
        for name, found in times.items():
            time.sleep(SETTLE_SECONDS)
            _seconds(runs[name])  # the first call after another's finds the caches full of that
            found += [_seconds(runs[name]) for _ in range(calls[name])]
    return {name: statistics.median(times[name]) if name in times else None for name in runs}


def _seconds(run: Run) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _commit() -> str:
    """The checkout's commit, ``-dirty`` if a file of it was changed; ``unknown`` outside of a checkout."""
    root = Path(__file__).parents[1]
    if not (root / "setup.py").exists():
        return "unknown"
    try:
        git = ("git", "-C", str(root))
        head = subprocess.run([*git, "rev-parse", "--short=10", "HEAD"], capture_output=True, text=True, check=True)
        state = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.strip() + "-dirty" * bool(state.stdout.strip())


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser("python -m seqcells.tune", description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60, help="the limit of time; default: %(default)s")
    parser.add_argument("--json", metavar="FILE", help="write the table there instead of the cache")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be measured, and where it is kept")
    parser.add_argument("--from-results", metavar="FILE", help="do not measure: read a result file of the benchmark")
    options = parser.parse_args(arguments)
    if not options.seconds > 0:
        parser.error("--seconds must be more than zero")
    if options.from_results and not options.json:
        parser.error("--from-results needs --json: a table of another machine is not for this one's cache")
    try:
        if options.from_results:
            _keep(results.table(options.from_results), options.json)
        else:
            _tune(options)
    except (OSError, ValueError) as problem:
        raise SystemExit(str(problem)) from None


def _tune(options: argparse.Namespace) -> None:
    why_not = cpu.unavailable()
    if why_not:
        raise SystemExit(f"there is nothing to compare torch's operators with: {why_not}")
    machine_class, threads = machine.machine_class(estimates.instruction_set()), torch.get_num_threads()
    path = options.json or estimates.own_folder() / file_name(machine_class, threads)
    wanted = list(points())
    print(f"{machine.processor()}, class {machine_class}, {machine.cores()} cores, {threads} threads of torch")
    print(f"{len(wanted)} points in {options.seconds:g} seconds at most, for {path}")
    if options.dry_run:
        print(*map(in_words, wanted), sep="\n")
        return
    # Two at once would measure each other.
    with nullcontext() if options.json else cache.lock("tune", timeout=0):
        _keep(measure(wanted, options.seconds, lambda line: print(line, flush=True)), path)


def file_name(machine_class: str, threads: int) -> str:
    """What a table's file is called."""
    return f"{machine_class}-{threads}t.json"


def _keep(table: Table, path: str | Path) -> None:
    cache.write(path, table.to_json())
    estimates.reload()
    print(f"{len(table.points)} points of class {table.machine_class} are in {path}")


if __name__ == "__main__":
    main()
