"""A run: cases through a timer to rows, ratios and a report that is saved as it grows."""

import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from . import floors, machine
from .case import Case
from .providers import BASELINE, NULL
from .schema import VERSION, Figure, Report, Row
from .shapes import Shape
from .suites import SUITES
from .timing import NULL_BAND, Outcome, out_of_time


class Timer(Protocol, AbstractContextManager):
    """`timing.processes.Processes` or `timing.events.Events`."""

    threads: int
    deadline: float | None
    """Of time.monotonic: whoever has not begun by then is left out, and said to be."""
    others: list[float]
    """Which part of the processors other programs took, by case, as far as it is known."""

    def measure(self, case: Case) -> Iterator[Outcome]: ...


def cases(
    suites: Iterable[str], cells: Iterable[str], shapes: list[Shape], dtypes: Iterable[str], device: str, chosen: bool
) -> list[Case]:
    """All of them, suite by suite; ``chosen``: the shapes are the user's own."""
    return [
        Case(suite, cell, shape, dtype, device)
        for suite in suites
        for shape in SUITES[suite].shapes(shapes, chosen)
        for cell in cells
        for dtype in dtypes
    ]


def start(device: str, threads: int, command: str, measured_floors: dict[str, Any]) -> Report:
    """An empty report of this machine."""
    return Report(
        schema=VERSION,
        date=machine.now(),
        commit=machine.commit(),
        command=command,
        device=device,
        machine=machine.describe(device, threads),
        versions=machine.versions(),
        floors=measured_floors,
        rows=[],
        null={"cases": 0},
    )


def run(
    report: Report,
    timer: Timer,
    planned: list[Case],
    save_to: Path | None,
    on_case: Callable[[int, Case], None],
) -> None:
    """Measure the cases into the report; past the timer's deadline the rest is dropped, with a note."""
    began = time.monotonic()

    for index, case in enumerate(planned):
        on_case(index, case)
        for outcome in timer.measure(case):
            report.rows.append(row(case, outcome))
            relate(report)
            report.seconds = time.monotonic() - began
            # Without a null row there is nothing to trust yet, and nothing is written.
            if save_to and report.null["cases"]:
                report.save(save_to)
        if out_of_time(timer.deadline) and index + 1 < len(planned):
            rest = planned[index + 1 :]
            report.notes.append(f"out of time: {len(rest)} of {len(planned)} cases not measured: {_listed(rest)}")
            break
    else:
        report.complete = True
    if timer.others:
        report.machine["others"] = statistics.median(timer.others)
    report.rows.sort(key=lambda each: list(SUITES).index(each.suite))  # stable: a suite's cases in their order
    if save_to and report.null["cases"]:
        report.save(save_to)


def _listed(left: list[Case]) -> str:
    shown = ", ".join(map(str, left[:4]))
    return shown if len(left) <= 4 else f"{shown}, …"


def figure(samples: list[float], divisor: int) -> Figure | None:
    """Median and percentiles."""
    if not samples:
        return None
    ordered = sorted(sample / divisor for sample in samples)
    last = len(ordered) - 1
    return Figure(statistics.median(ordered), ordered[round(0.2 * last)], ordered[round(0.8 * last)], len(ordered))


def row(case: Case, outcome: Outcome) -> Row:
    """An outcome as the report keeps it, ratios to come."""
    divisor = case.suite.runs_per_figure(case.shape)
    return Row(
        suite=case.suite_name,
        cell=case.cell_name,
        batch=case.shape.batch,
        hidden=case.shape.hidden,
        steps=case.shape.steps,
        dtype=case.dtype_name,
        device=case.device,
        provider=outcome.provider,
        ours=outcome.ours,
        status=outcome.status,
        reason=outcome.reason,
        error=outcome.error,
        unit="B" if case.suite.memory else "s",
        figure=figure(outcome.figures, divisor) if outcome.status == "ok" else None,
        graph=figure(outcome.graph_figures, divisor) if outcome.status == "ok" else None,
        notes=outcome.notes,
    )


def key(row: Row) -> tuple[Any, ...]:
    """What the rows of one case have in common."""
    return row.suite, row.cell, row.batch, row.hidden, row.steps, row.dtype, row.device


def relate(report: Report) -> None:
    """Fill in what compares rows: ratios, floors, and what the null rows say."""
    by_case: dict[tuple[Any, ...], list[Row]] = {}
    for each in report.rows:
        by_case.setdefault(key(each), []).append(each)
    nulls = []
    for rows in by_case.values():
        measured = {each.provider: each.figure.median for each in rows if each.figure}
        rivals = [measured[each.provider] for each in rows if each.figure and not each.ours and each.provider != NULL]
        for each in rows:
            if not each.figure:
                continue
            median = each.figure.median
            each.ratio = _over(measured.get(BASELINE), median)
            each.ratio_to_rival = _over(min(rivals, default=None), median)
            if each.unit == "s":
                each.floor = floors.model(each, report.floors)
                each.distance = _over(median, each.floor.seconds if each.floor else None)
            if each.provider == NULL and each.unit == "s" and each.ratio:
                nulls.append(each.ratio)
    if nulls:
        typical = statistics.median(nulls)
        report.null = {
            "cases": len(nulls),
            "ratio": typical,
            "worst": max(nulls, key=lambda ratio: abs(ratio - 1)),
            "outside": sum(abs(ratio - 1) > NULL_BAND for ratio in nulls),
            "within": abs(typical - 1) <= NULL_BAND,
        }


def _over(above: float | None, below: float | None) -> float | None:
    return above / below if above is not None and below else None
