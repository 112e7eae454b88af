"""The format of a result file: a `Report` of `Row`s as JSON, with a version, checked when written and when read."""

import dataclasses
import json
import math
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import result_files

VERSION = 3
OLDER = (1, 2)
"""Older versions that can still be read: every field that they lack has a default."""
RENAMED = {"floor": "roofline", "floors": "rooflines", "null": "aa"}
"""The names that fields of older files had. Their provider ``null`` is the A/A row."""
STATUSES = ("ok", "refused", "unavailable", "wrong", "failed")
# The fields that describe a machine since version 2, beside the fields of every version.
MACHINE: dict[str, Any] = {
    "class": str | None,
    "instruction_set": str | None,
    "caches": dict[str, int],
    "usable_cores": int,
    "quota": float | None,
    "hypervisor": bool,
    "others": float,
}


class SchemaError(ValueError):
    """A file that is not a valid result file."""


@dataclass
class Figure:
    """Seconds, or bytes in the memory suite."""

    median: float
    p20: float
    p80: float
    samples: int
    mean: float | None = None
    """The mean over all timed calls, in suites under load."""

    @property
    def value(self) -> float:
        """The value by which rows are compared: the mean under load, elsewhere the median."""
        return self.median if self.mean is None else self.mean


@dataclass
class Roofline:
    """The least time of the row on this machine, by the model of `rooflines`."""

    seconds: float
    parts: dict[str, float]
    """Seconds by what they are spent on."""


@dataclass
class Origin:
    """The origin of a row, in a file that several runs wrote."""

    date: str
    commit: str
    code: str | None = None
    """A digest of what ran: machine code, launch parameters and libraries. None where it is unknown."""
    baseline: float | None = None
    """torch.nn's value in the same run, with which the row is compared."""
    aa: float | None = None
    """torch.nn's value divided by its second value, in the same case of the same run."""


@dataclass
class Row:
    """One provider in one case."""

    suite: str
    cell: str
    batch: int
    hidden: int
    steps: int
    dtype: str
    device: str
    provider: str
    ours: bool
    status: str
    reason: str | None = None
    """Why there is no figure."""
    error: float | None = None
    """The relative error against the float64 result."""
    unit: str = "s"
    """``s`` or ``B``."""
    figure: Figure | None = None
    graph: Figure | None = None
    """The figure of the replay as a CUDA graph."""
    ratio: float | None = None
    """torch.nn's value divided by this value: above 1 is faster, or smaller."""
    ratio_to_rival: float | None = None
    """The best value that is not ours, divided by this value."""
    roofline: Roofline | None = None
    distance: float | None = None
    """The value divided by the roofline."""
    notes: list[str] = field(default_factory=list)
    load: float = 0.0
    """Busy processes for each usable core."""
    to_one_thread: float | None = None
    """In suites under load: the value of our engine with one thread under the same load, divided by this value."""
    kept: float | None = None
    """In suites under load: the provider's value without load divided by this value, which is the share of throughput
    kept."""
    origin: Origin | None = None
    """Set in a file that several runs wrote."""


@dataclass
class LeftOut:
    """A case that was planned and not measured."""

    case: str
    reason: str
    seconds: float | None = None
    """The estimated seconds of the case."""


@dataclass
class Stage:
    """The result of one stage of a GPU session."""

    done: bool
    seconds: float
    words: str = ""
    """What the stage did, or why it did not finish."""


@dataclass
class TestFile:
    """The result of one test file."""

    commit: str
    seconds: float
    passed: int = 0
    skipped: int = 0
    failed: list[str] = field(default_factory=list)
    """pytest's names of the tests that failed."""
    words: str = ""
    """Why the file did not run to its end, or could not begin."""


@dataclass
class Report:
    """A run of the benchmark."""

    schema: int
    date: str
    commit: str
    command: str
    device: str
    machine: dict[str, Any]
    versions: dict[str, str]
    rooflines: dict[str, Any]
    rows: list[Row]
    aa: dict[str, Any]
    """The result of timing torch.nn against itself: ``ratio`` (median), ``worst``, ``cases``, ``within``."""
    seconds: float = 0.0
    complete: bool = False
    notes: list[str] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    rehearsal: bool = False
    """Whether this is a GPU session rehearsed on a machine without a GPU; its figures mean nothing."""
    stages: dict[str, Stage] = field(default_factory=dict)
    tests: dict[str, TestFile] = field(default_factory=dict)
    models: list[dict[str, Any]] = field(default_factory=list)
    clusters: list[dict[str, Any]] = field(default_factory=list)
    """Microseconds a step of the cluster plan's kernels, see `benchmarks.gpu.clusters`."""

    def check(self) -> "Report":
        """Check the report and return it.

        Raises:
            SchemaError: the report contradicts itself or the schema.
        """
        if self.schema != VERSION:
            raise SchemaError(f"schema {self.schema}, this is version {VERSION}")
        for name, kind in MACHINE.items():
            if name in self.machine:
                read(kind, self.machine[name], f"machine.{name}")
        for left in self.left_out:
            if not (left.case and left.reason):
                raise SchemaError(f"left out: {left.case!r} for the reason {left.reason!r}")
        for row in self.rows:
            where = f"{row.suite} {row.cell} B{row.batch} H{row.hidden} {row.provider}"
            if row.status not in STATUSES:
                raise SchemaError(f"{where}: status {row.status!r} is none of {', '.join(STATUSES)}")
            if (row.figure is not None) != (row.status == "ok"):
                raise SchemaError(f"{where}: a row has a figure if and only if its status is ok")
            if row.status == "ok" and row.error is None:
                raise SchemaError(f"{where}: a figure without parity")
            if row.status != "ok" and not row.reason:
                raise SchemaError(f"{where}: no figure and no reason")
            if not 0 <= row.load < math.inf:
                raise SchemaError(f"{where}: a load of {row.load}")
            if row.figure and row.figure.mean is not None and not 0 < row.figure.mean < math.inf:
                raise SchemaError(f"{where}: a mean of {row.figure.mean}")
        if (not self.stages or any(row.figure for row in self.rows)) and not self.aa.get("cases"):
            raise SchemaError("no A/A row: torch.nn was not timed against itself")
        return self

    def save(self, path: str | Path) -> None:
        """Check the report and write the file in one atomic step."""
        result_files.write(self.check(), path)

    @classmethod
    def load(cls, path: str | Path) -> "Report":
        """Load a report from a file.

        Raises:
            SchemaError: the file is not a report.
        """
        try:
            data = json.loads(Path(path).read_text())
        except json.JSONDecodeError as problem:
            raise SchemaError(f"{path}: not JSON: {problem}") from None
        if isinstance(data, dict) and data.get("schema") in OLDER:
            data = _renamed(data) | {"schema": VERSION}
        return read(cls, data, str(path)).check()


def _renamed(value: Any) -> Any:
    """An older file's content under the names of today."""
    if isinstance(value, list):
        return [_renamed(item) for item in value]
    if not isinstance(value, dict):
        return value
    found = {RENAMED.get(name, name): _renamed(item) for name, item in value.items()}
    return found | {"provider": "A/A"} if found.get("provider") == "null" else found


def read(kind: Any, value: Any, where: str) -> Any:
    """Read ``value`` as a ``kind``: dataclasses, lists, dicts, unions and plain types, each checked."""
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, dict):
            raise SchemaError(f"{where}: expected an object, got {value!r}")
        hints = typing.get_type_hints(kind)
        unknown = set(value) - set(hints)
        missing = {
            f.name
            for f in dataclasses.fields(kind)
            if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        } - set(value)
        if unknown or missing:
            raise SchemaError(f"{where}: unknown {sorted(unknown)}, missing {sorted(missing)}")
        return kind(**{name: read(hints[name], item, f"{where}.{name}") for name, item in value.items()})
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        if value is None:
            return None
        return read(next(a for a in arguments if a is not types.NoneType), value, where)
    if origin is list:
        if not isinstance(value, list):
            raise SchemaError(f"{where}: expected a list, got {value!r}")
        return [read(arguments[0], item, f"{where}[{index}]") for index, item in enumerate(value)]
    if origin is dict:
        if not isinstance(value, dict):
            raise SchemaError(f"{where}: expected an object, got {value!r}")
        return {key: read(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    if kind is Any or (isinstance(value, kind) and not (kind is int and isinstance(value, bool))):
        return value
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    raise SchemaError(f"{where}: expected {kind.__name__}, got {value!r}")
