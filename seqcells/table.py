"""A table of the seconds that calls took on one machine, by torch's own operator and by ours."""

from __future__ import annotations

import json
import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from .call import Call

SCHEMA = 1
BACKENDS = ("torch", "cpu")
"""Backends that a table may have seconds of."""


class Point(NamedTuple):
    """A call that was measured: one layer in one direction with as many features as hidden units, or a cell."""

    cell: str
    form: str
    """``"layers"`` or ``"step"``."""
    training: bool
    """Whether gradients were made too."""
    dtype: str
    steps: int
    rows: int
    hidden: int

    @property
    def kind(self) -> tuple[str, str, bool, str]:
        """What is never interpolated: cell, form, training and dtype."""
        return self[:4]


@dataclass(frozen=True)
class Table:
    """Seconds by `Point` and backend; None for a backend that could not run the point."""

    machine_class: str
    """As `seqcells.machine` names it."""
    processor: str
    threads: int
    """torch's, when it was measured."""
    versions: dict[str, str]
    date: str
    commit: str
    """``unknown`` outside of a checkout."""
    source: str
    """What measured it: ``seqcells.tune``, or a result file of the benchmark."""
    complete: bool
    """Whether all points of the grid were measured, or time ran out."""
    points: dict[Point, dict[str, float | None]]
    name: str = field(default="", compare=False)
    """The file's, without its ending."""

    @classmethod
    def load(cls, path: str | Path) -> Table:
        """From a file.

        Raises:
            OSError: the file cannot be read.
            ValueError: the file is not a table of this schema; the error names it.
        """
        path = Path(path)
        try:
            given = json.loads(path.read_text())
            if given.pop("schema") != SCHEMA:
                raise ValueError(f"it is not of schema {SCHEMA}")
            points = {}
            for entry in given.pop("points"):
                seconds = entry.pop("seconds")
                points[Point(**entry)] = {backend: seconds[backend] for backend in BACKENDS}
            if not all(s is None or s > 0 for seconds in points.values() for s in seconds.values()):
                raise ValueError("its seconds are not all positive")
            if not given["threads"] > 0 or not all(min(point[4:]) > 0 for point in points):
                raise ValueError("its sizes are not all positive")
            return cls(**given, points=points, name=path.stem)
        except (ValueError, TypeError, KeyError, AttributeError) as problem:
            raise ValueError(f"{path} is no table of estimates: {problem}") from None

    def to_json(self) -> str:
        """The text of a file that `load` reads, a point a line."""
        head = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in ("points", "name")}
        lines = [json.dumps(point._asdict() | {"seconds": _rounded(seconds)}) for point, seconds in self.points.items()]
        points = ",\n  ".join(lines)
        return f'{json.dumps({"schema": SCHEMA, **head}, indent=1)[:-2]},\n "points": [\n  {points}\n ]\n}}\n'

    def seconds(self, backend: str, call: Call, training: bool, beyond: bool = True) -> float | None:
        """What a call would take by a backend, or None where the table does not cover it.

        Calls with options are not covered. Layers and directions multiply. Single steps stand for single steps alone,
        one other number of steps for any; between two, and beyond them, seconds are a line over steps.

        Args:
            beyond: whether rows and hidden units that lie beyond the measured ones are covered. Default: True
        """
        dtype = str(call.dtype).removeprefix("torch.")
        grids = self._grids.get((backend, call.cell.name, call.form, training, dtype))
        if grids is None or call.options or not (call.steps and call.rows and call.hidden):
            return None
        if call.steps in grids:
            grids = {call.steps: grids[call.steps]}
        if not beyond and not all(grid.spans(call.rows, call.hidden) for grid in grids.values()):
            return None
        one = _over_steps(grids, call.steps, call.rows, call.hidden)
        return None if one is None else one * call.layers * call.directions

    @cached_property
    def _grids(self) -> dict[tuple[Any, ...], dict[int, Grid]]:
        found: dict[tuple[Any, ...], dict[int, dict[tuple[int, int], float]]] = {}
        for point, seconds in self.points.items():
            for backend, value in seconds.items():
                if value is not None:
                    of_kind = found.setdefault((backend, *point.kind), {})
                    of_kind.setdefault(point.steps, {})[point.rows, point.hidden] = value
        return {kind: {steps: Grid(grid) for steps, grid in grids.items()} for kind, grids in found.items()}


class Grid:
    """Seconds over rows and hidden units: exact at the points, between them linear in the logarithms of all three.

    The points need not be a full grid: each number of rows has a line over hidden units, and rows are interpolated
    between lines. Beyond the points seconds grow with the work, rows × hidden², and below the smallest they stay. The
    ratio of two backends that were measured at the same points is thus the nearest edge's.
    """

    def __init__(self, points: Mapping[tuple[int, int], float]) -> None:
        all_rows, all_hidden = zip(*points, strict=True)
        self._rows, self._hidden = (min(all_rows), max(all_rows)), (min(all_hidden), max(all_hidden))
        lines: dict[int, list[tuple[float, float]]] = {}
        for (rows, hidden), seconds in sorted(points.items()):
            lines.setdefault(rows, []).append((math.log(hidden), math.log(seconds / _work(rows, hidden))))
        self._lines = [(math.log(rows), line) for rows, line in sorted(lines.items())]

    def spans(self, rows: int, hidden: int) -> bool:
        """Whether both numbers lie between those of the points."""
        return self._rows[0] <= rows <= self._rows[1] and self._hidden[0] <= hidden <= self._hidden[1]

    def seconds(self, rows: int, hidden: int) -> float:
        """The seconds for so many rows and hidden units."""
        rows, hidden = max(rows, self._rows[0]), max(hidden, self._hidden[0])
        place = math.log(hidden)
        across = [(at, _on_line(line, place)) for at, line in self._lines]
        return math.exp(_on_line(across, math.log(rows))) * _work(rows, hidden)


def _rounded(seconds: Mapping[str, float | None]) -> dict[str, float | None]:
    """To four digits: no measurement has more."""
    return {backend: None if value is None else float(f"{value:.4g}") for backend, value in seconds.items()}


def _work(rows: int, hidden: int) -> int:
    return rows * hidden**2


def _on_line(points: Sequence[tuple[float, float]], x: float) -> float:
    """The height at ``x`` of straight lines through points in the order of their places; the ends' beyond them."""
    above = bisect_left(points, (x,))
    if above == 0 or above == len(points):
        return points[min(above, len(points) - 1)][1]
    (x0, y0), (x1, y1) = points[above - 1 : above + 1]
    return y0 + (y1 - y0) * (x - x0) / (x1 - x0)


def _over_steps(grids: Mapping[int, Grid], steps: int, rows: int, hidden: int) -> float | None:
    if steps in grids:
        return grids[steps].seconds(rows, hidden)
    counts = sorted(grids)
    if steps == 1 or counts == [1]:
        return None
    if len(counts) == 1:
        return grids[counts[0]].seconds(rows, hidden) * steps / counts[0]
    above = min(max(bisect_left(counts, steps), 1), len(counts) - 1)
    low, high = counts[above - 1 : above + 1]
    first, second = grids[low].seconds(rows, hidden), grids[high].seconds(rows, hidden)
    # A noisy measurement must not make more steps take less.
    line = first + max(0.0, second - first) / (high - low) * (steps - low)
    return max(line, first * steps / low) if steps < low else line
