"""The file of results, and its tables."""

from dataclasses import dataclass, field

from .. import machine, schema, tables, units
from ..record import Record

TARGETS = {1: 20.0, 8: 5.0, 32: 2.0}
"""How many times as fast as a loop in torch a layer should be, by the batch."""
HEADER = ("cell", "ours", "by", "loop", "× loop", "aim", "× LSTM", "error")


@dataclass
class Row:
    """A cell's layer in one mode and shape."""

    cell: str
    """Its class's name."""
    options: dict[str, str]
    batch: int
    hidden: int
    steps: int
    mode: str
    """``inference`` or ``training``"""
    backend: str
    """What ``auto`` took."""
    rival: str
    """``torchrecurrent``, or ``reference`` where it has no such cell."""
    error: float
    """How far our output, or the input's gradient, is from the rival's, relative to its norm."""
    ours: schema.Figure
    theirs: schema.Figure
    lstm: schema.Figure
    """Our LSTM's, by turns with the others."""

    @property
    def ratio(self) -> float:
        """How many times as fast as the loop ours is."""
        return self.theirs.median / self.ours.median

    @property
    def to_lstm(self) -> float:
        """Its time over our LSTM's."""
        return self.ours.median / self.lstm.median

    @property
    def case(self) -> str:
        return f"{self.mode} · B={self.batch} H={self.hidden} T={self.steps}"


@dataclass(kw_only=True)
class Report(Record):
    """A run."""

    WHAT = "cells"

    rows: list[Row] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    """Cases whose numbers are not the rival's; they are not timed."""
    complete: bool = False


def show(report: Report) -> None:
    """All of it, the rows that fall short marked."""
    versions = ", ".join(f"{package} {version}" for package, version in report.versions.items())
    tables.say(f"{machine.title(report.machine)} · {versions} · commit {report.commit} · {report.date}")
    for case in dict.fromkeys(row.case for row in report.rows):
        tables.table(case, HEADER, [_line(row) for row in report.rows if row.case == case], range(1, 8))
    for case in report.wrong:
        tables.say(f"wrong, so not timed: {case}")


def _line(row: Row) -> list[str]:
    aim = TARGETS.get(row.batch)
    short = "" if aim is None or row.ratio >= aim else f"{aim:.0f}×"
    times = units.seconds(row.ours.median), row.backend, units.seconds(row.theirs.median), units.ratio(row.ratio)
    return [row.cell, *times, short, units.ratio(row.to_lstm), f"{row.error:.0e}"]
