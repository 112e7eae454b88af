"""Times cases one after another, in a process that a case may crash."""

import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any

from .. import machine
from ..budget import Budget
from ..case import Case
from ..providers import AA, BASELINE, Provider
from ..run import row
from ..schema import Origin, Row
from ..timing import MINUTES, Effort
from ..timing.events import Events
from . import cases
from .code_digest import Watched

REHEARSED = Effort(seconds=0.005, fewest=2, most=1, extensions=0, band=float("inf"))
ROUNDS = 4
"""The largest number of times that a case is measured, while torch.nn differs from itself."""


class OnCpu(Events):
    """The timer of a rehearsal, in place of `Events`."""

    def __init__(self, providers: list[Provider], effort: Effort, graphs: bool) -> None:
        super().__init__(providers, effort, graphs=False, device="cpu")

    def _sets(self, case: Case) -> int:
        return 1

    def _timed(self, calls: list[Callable[[], Any]]) -> list[float]:
        figures = []
        for _ in range(self.effort.fewest):
            began = time.perf_counter()
            calls[0]()
            figures.append(time.perf_counter() - began)
        return figures


def timed(chosen: list[int], seconds: float, commit: str, rehearsal: bool, graphs: bool) -> Iterator[dict[str, Any]]:
    """Yield events ``{"begin": case}`` and ``{"case": …, "row": …}``, for cases by index, in order.

    A row follows as soon as it is measured, but torch.nn's row follows with the A/A row. A case whose A/A row is off
    is repeated after all other cases. ``{"lost": case}`` is the last event where the GPU's context is lost. Otherwise
    ``{"left": …}`` is the last: the cases without time, with the seconds that each would take.
    """
    planned, effort = cases.planned(rehearsal), REHEARSED if rehearsal else MINUTES
    deadline = time.monotonic() + seconds
    make = OnCpu if rehearsal else Events
    budget = Budget(deadline, cases.providers(planned[0], rehearsal), effort)
    waiting, tried = list(chosen), dict.fromkeys(chosen, 0)
    while fitting := budget.fitting([planned[index] for index in waiting]):
        index = planned.index(fitting[0])
        waiting.remove(index)
        tried[index] += 1
        yield {"begin": index}
        case, began = planned[index], time.monotonic()
        with make(list(map(Watched, cases.providers(case, rehearsal))), effort, graphs) as timer:
            timer.deadline = deadline
            rows = []
            for each in _rows(case, timer, commit):
                rows.append(each)
                yield {"case": index, "row": dataclasses.asdict(each)}
                if each.status == "failed" and "CUDA error" in (each.reason or ""):
                    yield {"lost": index}
                    return
        budget.took(case, time.monotonic() - began)
        aa = rows[0].origin.aa if rows else None
        if aa and abs(aa - 1) > effort.band and tried[index] < ROUNDS:
            waiting.append(index)
    yield {"left": {index: budget.seconds(planned[index]) for index in waiting if not tried[index]}}


def _rows(case: Case, timer: Events, commit: str) -> Iterator[Row]:
    """The rows of a case, each with torch.nn's values of the same run."""
    pair: dict[str, Row] = {}
    for outcome in timer.measure(case):
        if outcome.status == "refused" and outcome.reason == "out of time":
            continue
        made = row(case, outcome)
        made.origin = Origin(machine.now(), commit, _code(timer.providers[outcome.provider], outcome.status))
        if made.provider in (BASELINE, AA):
            pair[made.provider] = made
            if len(pair) < 2:
                continue
        measured = [pair[name].figure and pair[name].figure.value for name in (BASELINE, AA)]
        # The A/A row comes first: without it no report is written.
        ready = [pair[AA], pair[BASELINE]] if made.provider in pair else [made]
        for each in ready:
            each.origin.baseline = measured[0]
            each.origin.aa = measured[0] / measured[1] if all(measured) else None
        yield from ready


def _code(provider: Watched, status: str) -> str | None:
    return "refused" if status == "refused" else provider.code
