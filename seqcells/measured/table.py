"""A table of the seconds that calls took on one machine, a CPU or a GPU, by torch's own operator and our kernels."""

from __future__ import annotations

import json
import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..system import machine

if TYPE_CHECKING:
    from ..request.call import Call

SCHEMA = 1
KERNELS = {"cpu": "cpu", "cuda": "triton"}
"""The backend of our kernels for each type of device."""


def backends(device_type: str) -> tuple[str, str]:
    """The backends whose seconds a table has, for a type of device: torch's operator and our kernels."""
    return "torch", KERNELS[device_type]


class Point(NamedTuple):
    """A measured call: one layer in one direction with as many features as hidden units, or a single step."""

    cell: str
    form: str
    """``"layers"``, ``"packed"`` (a layer of a PackedSequence, lengths from a tenth of the steps up) or ``"step"``."""
    training: bool
    """Whether gradients were computed too."""
    dtype: str
    """torch's name of the dtype; ``"tf32"`` for float32 whose products may be rounded to tf32."""
    steps: int
    rows: int
    hidden: int

    @property
    def kind(self) -> tuple[str, str, bool, str]:
        """The properties that are never interpolated: cell, form, training and dtype."""
        return self[:4]


@dataclass(frozen=True)
class Table:
    """Seconds by `Point` and backend; None for a backend that could not run the point."""

    machine_class: str
    """The machine class, as `seqcells.system.machine` names it."""
    processor: str
    threads: int
    """The number of torch's threads during the measurement."""
    versions: dict[str, str]
    date: str
    commit: str
    """The commit of the checkout; ``unknown`` outside of a checkout."""
    source: str
    """Where the seconds come from: ``seqcells.tune``, or a result file of the benchmark."""
    complete: bool
    """Whether all points of the grid were measured; False if time ran out."""
    points: dict[Point, dict[str, float | None]]
    name: str = field(default="", compare=False)
    """The name of the file, without its ending."""
    host: dict[str, dict[str, float]] = field(default_factory=dict)
    """Seconds that Python takes for a call of a layer of any size, by backend, for ``"inference"`` and ``"training"``.

    No call of a layer takes less. The seconds of measured single steps include Python's.
    """
    origins: dict[str, str] = field(default_factory=dict)
    """By name, the origin of the points that do not come from ``source``, and of ``host``."""
    origin_of: dict[Point, str] = field(default_factory=dict)
    """The name of the origin of each point that does not come from ``source``."""

    @classmethod
    def load(cls, path: str | Path) -> Table:
        """Read a table from a file.

        Raises:
            OSError: the file cannot be read.
            ValueError: the file is not a table of this schema; the error names it.
        """
        path = Path(path)
        try:
            given = json.loads(path.read_text())
            if given.pop("schema") != SCHEMA:
                raise ValueError(f"it is not of schema {SCHEMA}")
            points, origin_of = {}, {}
            wanted = backends(machine.device_type(given["machine_class"]))
            for entry in given.pop("points"):
                seconds, origin = entry.pop("seconds"), entry.pop("origin", None)
                points[Point(**entry)] = {backend: seconds[backend] for backend in wanted}
                if origin is not None:
                    origin_of[Point(**entry)] = origin
            if not {*origin_of.values()} <= given.get("origins", {}).keys():
                raise ValueError("a point's origin is not among its origins")
            all_seconds = [*points.values(), *given.get("host", {}).values()]
            if not all(s is None or s > 0 for seconds in all_seconds for s in seconds.values()):
                raise ValueError("its seconds are not all positive")
            if not given["threads"] > 0 or not all(min(point[4:]) > 0 for point in points):
                raise ValueError("its sizes are not all positive")
            return cls(**given, points=points, origin_of=origin_of, name=path.stem)
        except (ValueError, TypeError, KeyError, AttributeError) as problem:
            raise ValueError(f"{path} is no table of estimates: {problem}") from None

    def to_json(self) -> str:
        """The text of a file that `load` can read, with one point in each line."""
        elsewhere = {"points", "origin_of", "name"} | {name for name in ("host", "origins") if not getattr(self, name)}
        head = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in elsewhere}
        points = ",\n  ".join(map(self._line, self.points))
        return f'{json.dumps({"schema": SCHEMA, **head}, indent=1)[:-2]},\n "points": [\n  {points}\n ]\n}}\n'

    def _line(self, point: Point) -> str:
        origin = {"origin": self.origin_of[point]} if point in self.origin_of else {}
        return json.dumps(point._asdict() | {"seconds": _rounded(self.points[point])} | origin)

    def beside(self, other: Table) -> Table:
        """This table, with the points of another table of the same class that come from elsewhere than its ``source``.

        Points of this table have priority. ``host`` and ``origins`` are the other table's.

        Raises:
            ValueError: the other table is of another machine class.
        """
        if self.machine_class != other.machine_class:
            raise ValueError(f"a table of {other.machine_class} is no place for points of {self.machine_class}")
        origin_of = {point: name for point, name in other.origin_of.items() if point not in self.points}
        points = self.points | {point: other.points[point] for point in origin_of}
        return replace(self, points=points, origin_of=origin_of, host=other.host, origins=other.origins)

    @property
    def device_type(self) -> str:
        """The type of the measured device, ``"cpu"`` or ``"cuda"``."""
        return machine.device_type(self.machine_class)

    def seconds(
        self, backend: str, call: Call, training: bool, beyond: bool = True, dtype: str | None = None
    ) -> float | None:
        """Estimated seconds of a call by a backend, or None if the table does not cover the call.

        Calls with options are not covered, except for a packed input as the only option. The seconds of one layer and
        direction are multiplied by the numbers of layers and directions. Points of one time step are used for calls of
        one step alone. If points of one other number of steps were measured, seconds are proportional to the steps. If
        points of several were measured, seconds are a linear function of the steps, between and beyond them.

        Args:
            beyond: whether rows and hidden units beyond the measured ones are covered. Default: True
            dtype: a `Point`'s ``dtype``. Default: the name of the call's dtype
        """
        dtype = dtype or str(call.dtype).removeprefix("torch.")
        packed = call.options == ("packed",)
        grids = self._grids.get((backend, call.cell.name, "packed" if packed else call.form, training, dtype), {})
        if (call.options and not packed) or not (call.steps and call.rows and call.hidden):
            return None
        if not beyond:
            grids = {steps: grid for steps, grid in grids.items() if grid.spans(call.rows, call.hidden)}
        if call.steps in grids:
            grids = {call.steps: grids[call.steps]}
        one = _over_steps(grids, call.steps, call.rows, call.hidden) if grids else None
        if one is None:
            return None
        if call.form == "layers":
            one = max(one, self.host.get(backend, {}).get("training" if training else "inference", 0.0))
        return one * call.layers * call.directions

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
    """Seconds as a function of rows and hidden units, linear in the logarithms of all three between measured points.

    The points need not be a full grid: each number of rows has a line over hidden units, and rows are interpolated
    between lines. Beyond the points, seconds grow with the work, rows × hidden². Below the smallest sizes, seconds are
    constant. So beyond the points the ratio of two backends, measured at the same points, is that at the nearest edge.
    """

    def __init__(self, points: Mapping[tuple[int, int], float]) -> None:
        all_rows, all_hidden = zip(*points, strict=True)
        self._rows, self._hidden = (min(all_rows), max(all_rows)), (min(all_hidden), max(all_hidden))
        lines: dict[int, list[tuple[float, float]]] = {}
        for (rows, hidden), seconds in sorted(points.items()):
            lines.setdefault(rows, []).append((math.log(hidden), math.log(seconds / _work(rows, hidden))))
        self._lines = [(math.log(rows), line) for rows, line in sorted(lines.items())]

    def spans(self, rows: int, hidden: int) -> bool:
        """Whether both numbers are within the range of the measured points."""
        return self._rows[0] <= rows <= self._rows[1] and self._hidden[0] <= hidden <= self._hidden[1]

    def seconds(self, rows: int, hidden: int) -> float:
        """The estimated seconds for these numbers of rows and hidden units."""
        rows, hidden = max(rows, self._rows[0]), max(hidden, self._hidden[0])
        place = math.log(hidden)
        across = [(at, _on_line(line, place)) for at, line in self._lines]
        return math.exp(_on_line(across, math.log(rows))) * _work(rows, hidden)


def _rounded(seconds: Mapping[str, float | None]) -> dict[str, float | None]:
    """Seconds rounded to four digits, as no measurement is more precise."""
    return {backend: None if value is None else float(f"{value:.4g}") for backend, value in seconds.items()}


def _work(rows: int, hidden: int) -> int:
    return rows * hidden**2


def _on_line(points: Sequence[tuple[float, float]], x: float) -> float:
    """The value at ``x`` of the piecewise linear function through points sorted by x; constant beyond the points."""
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
    # The slope is at least 0, since after a noisy measurement more steps could otherwise take less time.
    line = first + max(0.0, second - first) / (high - low) * (steps - low)
    return max(line, first * steps / low) if steps < low else line
