"""``python -m benchmarks.keras``: Keras' recurrent layers on our engines, on torch by Keras itself, and on JAX.

python -m benchmarks.keras           in turns, each in a process of its own; JAX where it is installed
python -m benchmarks.keras --save    and keep the file among benchmarks/results
"""

import argparse
import importlib.util
import multiprocessing
import sys
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from .. import formats, machine, result_files, run, schema, tables
from ..shapes import Shape
from ..suite_results import Record
from .worker import JAX, LAYERS, MODES, OURS, TORCH, serve

SAMPLE = 0.1
"""The least seconds of a sample; a sample has at least one call."""
HEADER = ("layer", "mode", "seqcells", "keras torch", "keras jax", "× keras torch", "× keras jax")


@dataclass
class Row:
    """A layer's call by all providers."""

    layer: str
    batch: int
    hidden: int
    steps: int
    mode: str
    figures: dict[str, schema.Figure]
    """Seconds by provider."""
    notes: list[str] = field(default_factory=list)

    def ratio(self, rival: str) -> float | None:
        """How many times as fast as a rival ours is."""
        return self.figures[rival].median / self.figures[OURS].median if rival in self.figures else None


@dataclass(kw_only=True)
class Report(Record):
    """One run of the suite."""

    WHAT = "keras"

    rows: list[Row] = field(default_factory=list)


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit status."""
    top = argparse.ArgumentParser(
        prog="python -m benchmarks.keras", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    top.add_argument("--layers", nargs="+", choices=LAYERS, default=["LSTM", "GRU"], metavar="LAYER")
    top.add_argument("--shapes", nargs="+", type=Shape.parse, default=[Shape(32, 128, 100), Shape(1, 128, 100)])
    top.add_argument("--threads", type=int, default=torch.get_num_threads())
    top.add_argument("--samples", type=int, default=7)
    top.add_argument("--json", type=Path, metavar="PATH", help="write the results there")
    top.add_argument("--save", action="store_true", help="write them to benchmarks/results")
    options = top.parse_args(arguments)
    words = " ".join(["python -m benchmarks.keras", *(sys.argv[1:] if arguments is None else arguments)])
    report = Report.made_here("cpu", options.threads, words)
    providers = [OURS, TORCH, *([JAX] if importlib.util.find_spec("jax") else [])]
    context = multiprocessing.get_context("spawn")
    connections: dict[str, Connection] = {}
    for name in providers:
        connections[name], theirs = context.Pipe()
        context.Process(target=serve, args=(theirs, name, options.threads), daemon=True).start()
    for kind in options.layers:
        for shape in options.shapes:
            report.rows += [_row(connections, kind, shape, mode, options.samples) for mode in MODES]
    for connection in connections.values():
        connection.send(None)
    _show(report)
    path = result_files.named(result_files.KERAS, report.date, report.commit) if options.save else options.json
    if path:
        report.save(path)
        print(f"written to {path}")
    return 0


def _row(connections: dict[str, Connection], kind: str, shape: Shape, mode: str, samples: int) -> Row:
    batch, hidden, steps = shape
    row = Row(kind, batch, hidden, steps, mode, {})
    calls, first = {}, {}
    for name, connection in connections.items():
        first[name] = _asked(connection, (kind, batch, steps, hidden, mode))
        if isinstance(first[name], str):
            row.notes.append(f"{name}: {first[name]}")
            continue
        if OURS in first and abs(first[name] - first[OURS]) > 1e-3 * abs(first[OURS]):
            row.notes.append(f"{name}: other numbers than ours, {first[name]} and {first[OURS]}")
            continue
        calls[name] = max(1, round(SAMPLE / _asked(connection, 2)))
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(samples):
        for name, count in calls.items():
            times[name].append(_asked(connections[name], count))
    row.figures = {name: run.figure(each, 1) for name, each in times.items()}
    return row


def _asked(connection: Connection, what: Any) -> Any:
    connection.send(what)
    return connection.recv()


def _show(report: Report) -> None:
    versions = ", ".join(f"{package} {version}" for package, version in report.versions.items())
    tables.say(f"{machine.title(report.machine)} · {versions} · commit {report.commit} · {report.date}")
    for shape in dict.fromkeys((row.batch, row.hidden, row.steps) for row in report.rows):
        lines = [_line(row) for row in report.rows if (row.batch, row.hidden, row.steps) == shape]
        tables.table("B={} H={} T={}".format(*shape), HEADER, lines, range(2, 7))
    for row in report.rows:
        for note in row.notes:
            tables.say(f"note: {row.layer} {row.mode}: {note}")


def _line(row: Row) -> list[str]:
    times = [formats.seconds(row.figures[name].median) if name in row.figures else "–" for name in (OURS, TORCH, JAX)]
    return [row.layer, row.mode, *times, formats.ratio(row.ratio(TORCH)), formats.ratio(row.ratio(JAX))]


if __name__ == "__main__":
    sys.exit(main())
