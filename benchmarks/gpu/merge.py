"""Several runs in one file: of each provider in each case the row that stands.

Of two codes the newer row stands, and of one code the newer one whose run had torch.nn level with itself, or else the
one that came nearer to it. Each brings torch.nn's value of its own run, so ratios are within a run.
"""

import copy
import math
from collections.abc import Iterable
from pathlib import Path

from .. import run
from ..schema import Report, Row
from ..timing import MINUTES


def key(row: Row) -> tuple:
    """What two rows of the same thing have in common."""
    return (*run.key(row), row.provider)


def put(rows: list[Row], new: Row) -> None:
    """Add a row, in the place of the one of the same thing if there is one and the new one is the better."""
    for index, old in enumerate(rows):
        if key(old) == key(new):
            rows[index] = _better(*sorted((old, new), key=lambda row: row.origin.date))
            return
    rows.append(new)


def _better(older: Row, newer: Row) -> Row:
    codes = {older.origin.code, newer.origin.code}
    if len(codes) == 2 and None not in codes:
        return newer
    if not (older.figure and newer.figure):
        return older if older.figure else newer
    # Among level ones none is the better for being nearer.
    nearer = max(distance(older), MINUTES.band) < max(distance(newer), MINUTES.band)
    best, other = (older, newer) if nearer else (newer, older)
    # Replays of a graph are timed in a stage of their own.
    best.graph = best.graph or other.graph
    return best


def distance(row: Row) -> float:
    """How far torch.nn was from itself in the row's run."""
    null = row.origin.null if row.origin else None
    return math.inf if null is None else abs(null - 1)


def merged(reports: Iterable[Report]) -> Report:
    """All of them in one.

    Raises:
        ValueError: for reports of several machines, of a rehearsal, or with rows that do not say where they come from.
    """
    ordered = sorted(reports, key=lambda report: report.date)
    if len({(report.device, report.machine.get("gpu")) for report in ordered}) > 1:
        raise ValueError("reports of several devices")
    if len({report.rehearsal for report in ordered}) > 1:
        raise ValueError("a rehearsal and a measurement")
    if any(row.origin is None for report in ordered for row in report.rows):
        raise ValueError("rows that do not say which run they come from")
    whole = copy.deepcopy(ordered[-1])
    whole.rows = []
    for report in ordered:
        for each in report.rows:
            put(whole.rows, copy.deepcopy(each))
    for older in reversed(ordered[:-1]):
        whole.tests = older.tests | whole.tests
        whole.models = whole.models or older.models
        whole.clusters = whole.clusters or older.clusters
        whole.stages = older.stages | {
            name: s for name, s in whole.stages.items() if s.done or name not in older.stages
        }
    there = {str(run.case_of(row)) for row in whole.rows}
    whole.left_out = [left for left in whole.left_out if left.case not in there]
    whole.complete = not whole.left_out
    run.relate(whole)
    whole.rows.sort(key=run.place)
    return whole


def write(paths: list[Path], into: Path, results: Path) -> Report:
    """Merge files, and what ``into`` has already, into it. ValueError: see `merged`; no rehearsal among ``results``."""
    reports = [Report.load(path) for path in dict.fromkeys([*([into] if into.exists() else []), *paths])]
    whole = merged(reports)
    if whole.rehearsal and into.resolve().parent == results.resolve():
        raise ValueError(f"a rehearsal does not belong in {results}")
    whole.save(into)
    return whole
