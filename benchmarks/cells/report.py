"""The result file of the suite ``cells``, and its tables."""

from dataclasses import dataclass, field

from .. import formats, machine, schema, tables
from ..suite_results import Record

TARGETS = {1: 20.0, 8: 5.0, 32: 2.0}
"""The aim for each batch: how many times as fast as a loop in torch a layer should be."""
HEADER = ("cell", "ours", "by", "loop", "× loop", "aim", "× LSTM", "error")


@dataclass
class Row:
    """One cell's layer in one mode and shape."""

    cell: str
    """The name of the cell's class."""
    options: dict[str, str]
    batch: int
    hidden: int
    steps: int
    mode: str
    """``inference`` or ``training``"""
    backend: str
    """The backend that ``auto`` chose."""
    rival: str
    """``torchrecurrent``, or ``reference`` where torchrecurrent has no such cell."""
    error: float
    """The relative error of our output, or of our input gradient, against the rival's, by norms."""
    ours: schema.Figure
    theirs: schema.Figure
    lstm: schema.Figure
    """The time of our LSTM, measured in turns with our layer and the rival."""

    @property
    def ratio(self) -> float:
        """How many times as fast as the loop our layer is."""
        return self.theirs.median / self.ours.median

    @property
    def to_lstm(self) -> float:
        """The time of our layer divided by the time of our LSTM."""
        return self.ours.median / self.lstm.median

    @property
    def case(self) -> str:
        return f"{self.mode} · B={self.batch} H={self.hidden} T={self.steps}"


@dataclass(kw_only=True)
class Report(Record):
    """One run of the suite."""

    WHAT = "cells"

    rows: list[Row] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    """Cases whose numbers differ from the rival's; these cases are not timed."""
    complete: bool = False


def show(report: Report) -> None:
    """Print all rows; rows below their aim are marked."""
    versions = ", ".join(f"{package} {version}" for package, version in report.versions.items())
    tables.say(f"{machine.title(report.machine)} · {versions} · commit {report.commit} · {report.date}")
    for case in dict.fromkeys(row.case for row in report.rows):
        tables.table(case, HEADER, [_line(row) for row in report.rows if row.case == case], range(1, 8))
    for case in report.wrong:
        tables.say(f"wrong, so not timed: {case}")


def _line(row: Row) -> list[str]:
    aim = TARGETS.get(row.batch)
    short = "" if aim is None or row.ratio >= aim else f"{aim:.0f}×"
    times = (
        formats.seconds(row.ours.median),
        row.backend,
        formats.seconds(row.theirs.median),
        formats.ratio(row.ratio),
    )
    return [row.cell, *times, short, formats.ratio(row.to_lstm), f"{row.error:.0e}"]
