"""Joins several runs in one file: one row for each provider in each case.

Between rows of different code, the newer row is kept. Between rows of the same code, the newer row is kept if torch.nn
was level with itself in its run. Otherwise, the row is kept whose run had torch.nn nearer to itself. Each row keeps
torch.nn's value of its own run, so ratios are within a run.
"""

import copy
import math
from collections.abc import Iterable
from pathlib import Path

from .. import run
from ..schema import Report, Row
from ..timing import MINUTES


def key(row: Row) -> tuple:
    """The fields that identify what a row measures."""
    return (*run.key(row), row.provider)


def put(rows: list[Row], new: Row) -> None:
    """Add a row, or, if the list has a row with the same key, keep the better one."""
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
    # Two rows within the band are equally good, so the newer one is kept.
    nearer = max(distance(older), MINUTES.band) < max(distance(newer), MINUTES.band)
    best, other = (older, newer) if nearer else (newer, older)
    # A stage of its own times the replays of a CUDA graph.
    best.graph = best.graph or other.graph
    return best


def distance(row: Row) -> float:
    """How far the ratio of torch.nn to itself was from 1 in the row's run."""
    aa = row.origin.aa if row.origin else None
    return math.inf if aa is None else abs(aa - 1)


def merged(reports: Iterable[Report]) -> Report:
    """Join all reports in one.

    Raises:
        ValueError: the reports are of several devices, some are rehearsals, or a row has no origin.
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
    """Merge files into ``into``, with the rows that ``into`` has already.

    Raises:
        ValueError: see `merged`; also for a rehearsal in the folder ``results``.
    """
    reports = [Report.load(path) for path in dict.fromkeys([*([into] if into.exists() else []), *paths])]
    whole = merged(reports)
    if whole.rehearsal and into.resolve().parent == results.resolve():
        raise ValueError(f"a rehearsal does not belong in {results}")
    whole.save(into)
    return whole
