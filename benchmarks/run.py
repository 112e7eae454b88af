"""Runs cases through a timer, and makes rows, ratios and a report that is saved as it grows."""

import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from operator import mul
from pathlib import Path
from typing import Any, Protocol

from . import machine, rooflines
from .budget import Budget
from .case import Case
from .providers import AA, BASELINE, ONE_THREAD, TWICE, Provider
from .schema import VERSION, Figure, LeftOut, Report, Row
from .shapes import Shape
from .suites import SUITES
from .timing import AA_BAND, Effort, Outcome

# Providers whose time without load is another provider's: the same layer with the usual number of threads.
UNLOADED = {TWICE: "seqcells auto"}


class Timer(Protocol, AbstractContextManager):
    """`timing.processes.Processes` or `timing.events.Events`."""

    threads: int
    providers: Mapping[str, Provider]
    effort: Effort
    deadline: float | None
    """The deadline by time.monotonic. A case that has not begun by then is skipped, and the report says so."""
    others: list[float]
    """The share of the processors' time that other programs took, by case, where it is known."""

    def measure(self, case: Case) -> Iterator[Outcome]: ...


def cases(
    suites: Iterable[str],
    cells: Iterable[str],
    shapes: list[Shape],
    dtypes: Iterable[str],
    device: str,
    chosen: bool,
    loads: tuple[float, ...] | None = None,
    most: Mapping[str, int] | None = None,
) -> list[Case]:
    """All cases, suite by suite.

    Args:
        chosen: whether the shapes are the user's own.
        loads: the loads of the suites under load. Default: each suite's
        most: how many shapes a suite takes, the first ones. Default: all
    """
    return [
        Case(suite, cell, shape, dtype, device, load)
        for suite in suites
        for shape in SUITES[suite].shapes(shapes, chosen)[: (most or {}).get(suite)]
        for load in ((loads or SUITES[suite].loads) if SUITES[suite].loads else (0,))
        for cell in cells
        for dtype in dtypes
    ]


def start(device: str, threads: int, command: str, measured_rooflines: dict[str, Any]) -> Report:
    """An empty report of this machine."""
    return Report(
        schema=VERSION,
        date=machine.now(),
        commit=machine.commit(),
        command=command,
        device=device,
        machine=machine.describe(device, threads),
        versions=machine.versions(),
        rooflines=measured_rooflines,
        rows=[],
        aa={"cases": 0},
    )


def run(
    report: Report,
    timer: Timer,
    planned: list[Case],
    save_to: Path | None,
    on_case: Callable[[int, int, Case], None],
) -> None:
    """Measure the cases, the most telling first, and add rows to the report, with the cases that the deadline left out.

    ``on_case`` is called as each case begins, with the number of cases before it and the expected total.
    """
    began = time.monotonic()
    budget = Budget(timer.deadline, timer.providers.values(), timer.effort)
    waiting, done = list(planned), 0
    while fitting := budget.fitting(waiting):
        case = fitting[0]
        waiting.remove(case)
        on_case(done, done + len(fitting), case)
        case_began = time.monotonic()
        for outcome in timer.measure(case):
            report.rows.append(row(case, outcome))
            relate(report)
            report.seconds = time.monotonic() - began
            # Without a A/A row, no row can be trusted yet, and nothing is written.
            if save_to and report.aa["cases"]:
                report.save(save_to)
        budget.took(case, time.monotonic() - case_began)
        done += 1
    reason = f"out of time: {max(0, budget.left()):.0f} s were left" if waiting else ""
    report.left_out = [LeftOut(str(case), reason, budget.seconds(case)) for case in waiting]
    report.complete = not waiting
    if timer.others:
        report.machine["others"] = statistics.median(timer.others)
    report.rows.sort(key=place)
    if save_to and report.aa["cases"]:
        report.save(save_to)


def place(row: Row) -> tuple[float, ...]:
    """The sort key of a row in a report: suite, load and shape. Rows with equal keys stay in the order of
    measurement."""
    return list(SUITES).index(row.suite), row.load, row.batch, row.hidden, row.steps


def figure(samples: list[float], divisor: int, calls: Sequence[int] = ()) -> Figure | None:
    """Median and percentiles of samples. With ``calls``, each sample is the mean of so many calls, and the figure has
    the overall mean."""
    if not samples:
        return None
    ordered = sorted(sample / divisor for sample in samples)
    last = len(ordered) - 1
    mean = sum(map(mul, samples, calls)) / sum(calls) / divisor if calls else None
    return Figure(
        statistics.median(ordered), ordered[round(0.2 * last)], ordered[round(0.8 * last)], len(ordered), mean
    )


def row(case: Case, outcome: Outcome) -> Row:
    """An outcome as a row of the report, without ratios yet."""
    divisor = case.suite.runs_per_figure(case.shape)
    calls = outcome.calls if case.suite.loads else ()
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
        figure=figure(outcome.figures, divisor, calls) if outcome.status == "ok" else None,
        graph=figure(outcome.graph_figures, divisor) if outcome.status == "ok" else None,
        notes=outcome.notes,
        load=case.load,
    )


def key(row: Row) -> tuple[Any, ...]:
    """What the rows of one case have in common."""
    return row.suite, row.cell, row.batch, row.hidden, row.steps, row.dtype, row.device, row.load


def case_of(row: Row) -> Case:
    """The case that the row was measured in."""
    return Case(row.suite, row.cell, Shape(row.batch, row.hidden, row.steps), row.dtype, row.device, row.load)


def relate(report: Report) -> None:
    """Fill in what compares rows: ratios, rooflines, and the summary of the A/A rows."""
    by_case: dict[tuple[Any, ...], list[Row]] = {}
    for each in report.rows:
        by_case.setdefault(key(each), []).append(each)
    values = {case: {row.provider: row.figure.value for row in rows if row.figure} for case, rows in by_case.items()}
    nulls: dict[bool, list[float]] = {False: [], True: []}
    for case, rows in by_case.items():
        measured, unloaded = values[case], values.get((*case[:-1], 0), {})
        rivals = [_relative(each) for each in rows if each.figure and not each.ours and each.provider != AA]
        for each in rows:
            if not each.figure:
                continue
            value = each.figure.value
            each.ratio = _over(each.origin.baseline if each.origin else measured.get(BASELINE), value)
            each.ratio_to_rival = _over(min(rivals, default=None), _relative(each))
            if SUITES[each.suite].loads:
                each.to_one_thread = _over(measured.get(ONE_THREAD), value)
                each.kept = _over(unloaded.get(UNLOADED.get(each.provider, each.provider)), value)
            if each.unit == "s" and not each.load:
                each.roofline = rooflines.model(each, report.rooflines)
                each.distance = _over(value, each.roofline.seconds if each.roofline else None)
            if each.provider == AA and each.unit == "s" and each.ratio:
                nulls[each.load > 0].append(each.ratio)
    # Busy processes make torch.nn differ from itself. So A/A rows under load count only where there are no other aa
    # rows.
    counted = nulls[False] or nulls[True]
    if counted:
        typical = statistics.median(counted)
        report.aa = {
            "cases": len(counted),
            "ratio": typical,
            "worst": max(counted, key=lambda ratio: abs(ratio - 1)),
            "outside": sum(abs(ratio - 1) > AA_BAND for ratio in counted),
            "within": abs(typical - 1) <= AA_BAND,
        }


def _relative(row: Row) -> float:
    """The value. In a file of several runs: the value divided by torch.nn's in the same run."""
    baseline = row.origin.baseline if row.origin else None
    return row.figure.value / (baseline or 1)


def _over(above: float | None, below: float | None) -> float | None:
    return above / below if above is not None and below else None
