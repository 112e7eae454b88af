"""``python -m seqcells.tune``: measures backends on this machine, and keeps the table that `seqcells.measured` reads.

A coarse grid comes first, then a finer one, as far as time allows. So a run that is cut short keeps a table with some
points for every kind of call.
"""

import argparse
import datetime
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from .kernels import cpu, triton
from .measured import estimates, results
from .measured.table import KERNELS, Point, Table, backends
from .modules.cell_modules import GRUCell, LSTMCell, RecurrentCell
from .modules.layers import GRU, LSTM
from .modules.recurrent_layer import RecurrentLayer
from .system import cache, machine
from .version import __version__

MODULES: dict[str, tuple[type[RecurrentLayer], type[RecurrentCell]]] = {"lstm": (LSTM, LSTMCell), "gru": (GRU, GRUCell)}
"""The layer and the cell module of each cell."""


class Grid(NamedTuple):
    """The grid of points that are measured on a type of device."""

    kinds: tuple[tuple[str, int], ...]
    """Pairs of a form of calls and a number of steps."""
    rows: tuple[int, ...]
    hidden: tuple[int, ...]
    coarse: list[tuple[int, int]]
    """Pairs of rows and hidden units that are measured first."""
    passes: tuple[tuple[str, str], ...]
    """Pairs of a `Point`'s dtype and ``"coarse"`` or ``"fine"``, in the order of measurement."""

    def points(self) -> Iterator[Point]:
        """All points of the grid, the most informative first."""
        fine = [each for each in product(self.rows, self.hidden) if each not in self.coarse]
        for dtype, places in self.passes:
            sizes = self.coarse if places == "coarse" else fine
            for (rows, hidden), training, cell, (form, steps) in product(sizes, (False, True), MODULES, self.kinds):
                yield Point(cell, form, training, dtype, steps, rows, hidden)


GRIDS = {
    "cpu": Grid(
        kinds=(("layers", 32), ("layers", 1), ("step", 1)),
        rows=(1, 4, 16, 64),
        hidden=(64, 128, 256, 512),
        coarse=[(rows, hidden) for rows in (1, 64, 16) for hidden in (128, 512)],
        passes=tuple(product(("float32", "bfloat16"), ("coarse", "fine"))),
    ),
    # A GPU's table says nothing beyond its sizes. So the corners are measured first, for all dtypes.
    "cuda": Grid(
        kinds=(("layers", 256), ("layers", 32), ("layers", 1), ("packed", 256), ("step", 1)),
        rows=(1, 16, 64, 256),
        hidden=(128, 256, 512, 1024),
        coarse=[(rows, hidden) for rows in (64, 1) for hidden in (256, 1024)],
        passes=tuple(
            (dtype, places) for places in ("coarse", "fine") for dtype in ("tf32", "bfloat16", "float16", "float32")
        ),
    ),
}
"""The grid of each type of device."""
ENGINES = {"cpu": cpu, "cuda": triton}

POINT_SECONDS = 0.1
"""The time for the rounds of a point. At least two rounds are measured, even if they take longer."""
TURN_SECONDS = 0.005
MOST_CALLS, MOST_ROUNDS = 5, 9
SETTLE_SECONDS = 0.002
"""The pause between two backends, because the threads of torch's OpenMP spin for a while after a call."""

Run = Callable[[], object]


def measure(
    wanted: Sequence[Point], seconds: float, tell: Callable[[str], None], device: torch.device = estimates.CPU
) -> Table:
    """Measure points in their order, as many as the time allows, but at least one. Returns the table.

    Args:
        wanted: the points.
        seconds: the time limit. The point that is being measured at the limit is finished.
        tell: a function that is called with a line of text for each point.
        device: the device that is measured. Default: the CPU
    """
    synchronize = partial(torch.cuda.synchronize, device) if device.type == "cuda" else None
    found: dict[Point, dict[str, float | None]] = {}
    start = time.perf_counter()
    for point in wanted:
        if found and time.perf_counter() - start >= seconds:
            tell(f"out of time after {len(found)} of {len(wanted)} points")
            break
        runs = {backend: runner(point, backend, device) for backend in backends(device.type)}
        with _rounding(point, device):
            found[point] = timed(runs, synchronize)
        by = [f"{backend} {'fails' if s is None else f'{s * 1e6:.1f} µs'}" for backend, s in found[point].items()]
        tell(f"{in_words(point)}: {', '.join(by)}")
    return Table(
        machine_class=estimates.class_of(device),
        processor=_processor(device),
        threads=torch.get_num_threads(),
        versions=_versions(device),
        date=datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        commit=_commit(),
        source="seqcells.tune",
        complete=len(found) == len(wanted),
        points=found,
    )


def in_words(point: Point) -> str:
    """The point's name in a printed line."""
    kind = f"{point.dtype} {'training' if point.training else 'inference'} {point.cell} {point.form}"
    return f"{kind} B{point.rows} H{point.hidden} T{point.steps}"


def _kind(point: Point) -> Callable[..., Any]:
    """The class of the point's module."""
    layer, cell = MODULES[point.cell]
    return cell if point.form == "step" else layer


def runner(point: Point, backend: str, device: torch.device = estimates.CPU) -> Run:
    """A function that makes one call of the point by a backend, with random input and weights.

    For training points the call includes backward.
    """
    like = {"dtype": torch.float32 if point.dtype == "tf32" else getattr(torch, point.dtype), "device": device}
    rows, hidden, steps = point.rows, point.hidden, point.steps
    module = _kind(point)(hidden, hidden, backend=backend, **like)
    shape = (rows, hidden) if point.form == "step" else (steps, rows, hidden)
    input, hx = torch.randn(shape, **like), None
    if steps == 1:  # a caller of single steps passes the states on
        states = [torch.randn(shape, **like) for _ in module.cell.states]
        hx = states[0] if len(states) == 1 else tuple(states)
    if point.form == "packed":
        input = pack_padded_sequence(input, torch.linspace(steps, max(1, steps / 10), rows).round().long())

    def infer() -> object:
        with torch.no_grad():
            return module(input, hx)

    def train() -> object:
        output = module(input, hx)
        output = output if isinstance(output, torch.Tensor) else output[0]
        return torch.autograd.grad(_data(output), leaves, ones)

    leaves, ones = [_data(input).requires_grad_(point.training), *module.parameters()], torch.ones_like(_data(input))
    return train if point.training else infer


def _data(given: torch.Tensor | PackedSequence) -> torch.Tensor:
    return given.data if isinstance(given, PackedSequence) else given


def timed(runs: dict[str, Run], synchronize: Callable[[], object] | None = None) -> dict[str, float | None]:
    """The median seconds of each function, or None for a function that fails. The functions are timed in turns.

    Args:
        runs: the functions to time, by name.
        synchronize: waits until the device has done all its work. Several calls in a row are then timed together, as in
            a model: Python prepares a call while the device runs the one before. Default: None, a call returns when its
            work is done, and each call is timed
    """
    failures = RuntimeError if synchronize is None else Exception  # a compiler may raise errors of any type
    times: dict[str, list[float]] = {}
    calls = {}
    for name, run in runs.items():
        try:
            # The third call with the same signature is prepared, so three calls come first.
            first = [_seconds(run, synchronize) for _ in range(3)]
        except failures:
            continue
        times[name], calls[name] = [], max(1, min(MOST_CALLS, int(TURN_SECONDS / min(first))))
    start, rounds = time.perf_counter(), 0
    while rounds < 2 or (rounds < MOST_ROUNDS and time.perf_counter() - start < POINT_SECONDS):
        rounds += 1
        for name, found in times.items():
            time.sleep(SETTLE_SECONDS)
            _seconds(runs[name], synchronize)  # the call before by another backend has filled the caches
            if synchronize:
                found.append(_seconds(runs[name], synchronize, calls[name]))
            else:
                found += [_seconds(runs[name]) for _ in range(calls[name])]
    return {name: statistics.median(times[name]) if name in times else None for name in runs}


def _seconds(run: Run, synchronize: Callable[[], object] | None = None, calls: int = 1) -> float:
    """The seconds of one call, as the mean of several calls in a row."""
    start = time.perf_counter()
    for _ in range(calls):
        run()
    if synchronize:
        synchronize()
    return (time.perf_counter() - start) / calls


def _switch() -> Any:
    """The torch object with ``fp32_precision``. torch's stubs wrongly declare a module."""
    return torch.backends.cudnn.rnn


@contextmanager
def _rounding(point: Point, device: torch.device) -> Iterator[None]:
    """A context in which float32 products on a GPU are rounded as the point's dtype says: TF32 or IEEE."""
    if device.type != "cuda":
        yield
        return
    switch = _switch()
    before = switch.fp32_precision
    switch.fp32_precision = "tf32" if point.dtype == "tf32" else "ieee"
    try:
        yield
    finally:
        switch.fp32_precision = before


def _processor(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else machine.processor()


def _versions(device: torch.device) -> dict[str, str]:
    found = {"seqcells": __version__, "torch": torch.__version__, "python": platform.python_version()}
    if device.type == "cuda":
        found |= {"triton": import_module("triton").__version__, "cudnn": str(torch.backends.cudnn.version())}
    return found


def _commit() -> str:
    """The checkout's commit, with ``-dirty`` if a tracked file was changed; ``unknown`` outside of a checkout."""
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
    """Run the command line ``python -m seqcells.tune``."""
    parser = argparse.ArgumentParser("python -m seqcells.tune", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60, help="the limit of time; default: %(default)s")
    parser.add_argument("--device", type=_device, default="cpu", help="cpu, cuda or cuda:N; default: %(default)s")
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
            found, path = results.table(options.from_results), Path(options.json)
            _keep(found.beside(Table.load(path)) if path.exists() else found, path)
        else:
            _tune(options)
    except (OSError, ValueError) as problem:
        raise SystemExit(str(problem)) from None


def _device(name: str) -> torch.device:
    """The torch device of that name. ValueError if this package has no kernels for its type."""
    if name.partition(":")[0] not in KERNELS:
        raise ValueError
    return torch.device(name)


def _tune(options: argparse.Namespace) -> None:
    device = options.device
    why_not = ENGINES[device.type].why_not_available()
    if not why_not and device.type == "cuda" and triton.interpreted():
        why_not = "Triton's interpreter runs our kernels in Python"
    if why_not:
        raise SystemExit(f"there is nothing to compare torch's operators with: {why_not}")
    machine_class, threads = estimates.class_of(device), torch.get_num_threads()
    path = options.json or estimates.own_folder() / file_name(machine_class, threads)
    wanted = list(GRIDS[device.type].points())
    print(f"{_processor(device)}, class {machine_class}, {machine.cores()} cores, {threads} threads of torch")
    print(f"{len(wanted)} points in {options.seconds:g} seconds at most, for {path}")
    if options.dry_run:
        print(*map(in_words, wanted), sep="\n")
        return
    # Two runs at the same time would disturb each other's times.
    with nullcontext() if options.json else cache.lock("tune", timeout=0):
        _keep(measure(wanted, options.seconds, lambda line: print(line, flush=True), device), path)


def file_name(machine_class: str, threads: int) -> str:
    """The file name of a table. A GPU's name does not depend on the number of threads."""
    return machine_class + (f"-{threads}t" if machine.device_type(machine_class) == "cpu" else "") + ".json"


def _keep(table: Table, path: str | Path) -> None:
    cache.write(path, table.to_json())
    estimates.reload()
    print(f"{len(table.points)} points of class {table.machine_class} are in {path}")


if __name__ == "__main__":
    main()
