"""Chooses the cases that fit into a run's time, by estimated seconds that the measured seconds correct."""

import time
from collections.abc import Iterable

from .case import Case
from .providers import Provider
from .timing import ALONE, SHARED, Effort

# Rates of a middling processor: operations a second of a product; seconds of a time step for a provider that runs steps
# one by one. Last: seconds to prepare a provider before its first call. A GPU multiplies `GPU` times as fast.
RATE, STEP, PREPARING = 30e9, 20e-6, 0.1
GPU = 1000


def by_worth(cases: Iterable[Case]) -> list[Case]:
    """Sort cases so that the first ones tell most, and any number of first cases covers all suites.

    Every suite contributes its first case, then its second, and so on through its cells and dtypes. After this round,
    all suites contribute their second shapes or numbers of busy processes.
    """
    kinds: dict[str, dict[tuple[str, str], int]] = {}
    ranked = []
    for case in cases:
        seen = kinds.setdefault(case.suite_name, {})
        kind = case.cell_name, case.dtype_name
        place = list(seen).index(kind) if kind in seen else len(seen)
        seen[kind] = seen.get(kind, -1) + 1
        ranked.append((seen[kind], place, case))
    return [case for *_, case in sorted(ranked, key=lambda each: each[:2])]


def expected(case: Case, providers: Iterable[Provider], effort: Effort) -> float:
    """Estimate the seconds of a case on a middling processor; only the ratios between cases matter.

    Each provider is prepared, is called three times and takes its turns. The result in float64 takes as long as two
    calls.
    """
    batch, hidden, steps = case.shape
    products = 2 * steps * batch * len(case.cell.gates) * hidden * (hidden + case.features)
    rate = RATE * (GPU if case.device == "cuda" else 1)
    call = (products / rate + steps * STEP) * (3 if case.suite.gradients else 1)
    call *= case.suite.layers * case.suite.directions
    one = PREPARING + 3 * call
    if case.suite.memory:
        one += call
    else:
        sampling = SHARED if case.suite.loads else ALONE
        # Busy processes take their part of the processor's time.
        slowed = call * (1 + case.load)
        one += effort.turns(slowed, sampling) * sampling.turn(slowed)
    return 2 * call + one * sum(provider.why_not(case) is None for provider in providers)


class Budget:
    """The time of a run, and the cases that fit into it."""

    def __init__(self, deadline: float | None, providers: Iterable[Provider], effort: Effort) -> None:
        """Make a budget.

        Args:
            deadline: the value of time.monotonic() at which the time is over, or None for no end.
        """
        self.deadline, self.providers, self.effort = deadline, list(providers), effort
        self._taken = self._expected = 0.0

    def took(self, case: Case, seconds: float) -> None:
        """Record that a case took so many seconds."""
        self._taken += seconds
        self._expected += expected(case, self.providers, self.effort)

    def seconds(self, case: Case) -> float:
        """Seconds that a case takes, by its estimate and by the ratio of measured to estimated seconds so far."""
        pace = self._taken / self._expected if self._expected else 1.0
        return pace * expected(case, self.providers, self.effort)

    def left(self) -> float:
        """Seconds until the deadline."""
        return float("inf") if self.deadline is None else self.deadline - time.monotonic()

    def fitting(self, cases: list[Case]) -> list[Case]:
        """The cases that fit together, of cases in the order of their worth. Before the first measurement: all
        cases."""
        if self.deadline is None or not self._expected:
            return list(cases)
        left, fitting = self.left(), []
        for case in cases:
            seconds = self.seconds(case)
            if seconds <= left:
                left -= seconds
                fitting.append(case)
        return fitting
