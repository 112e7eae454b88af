"""Which cases fit into a run's time: the most telling of every suite and cell, by estimates that the run corrects."""

import time
from collections.abc import Iterable

from .case import Case
from .providers import Provider
from .timing import ALONE, SHARED, Effort

# A middling processor: multiplications and additions a second, seconds of a step for whoever takes them one by one,
# and of preparing a provider before it calls anything. A GPU multiplies so many times as fast.
RATE, STEP, PREPARING = 30e9, 20e-6, 0.1
GPU = 1000


def by_worth(cases: Iterable[Case]) -> list[Case]:
    """The same, so that the first ones say most, and any number of them says something of every suite.

    Every suite has its first case, then its second, and so on through its cells and dtypes; then all have their
    second shapes, or numbers of busy processes.
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
    """Seconds that a case takes on a middling processor; only the proportions of cases matter.

    Each provider is prepared, with three calls, and has its turns; float64's truth takes as long as two calls.
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
        # Busy processes take their part of the processors.
        slowed = call * (1 + case.load)
        one += effort.turns(slowed, sampling) * sampling.turn(slowed)
    return 2 * call + one * sum(provider.refuses(case) is None for provider in providers)


class Budget:
    """The time of a run, and the cases that fit into it."""

    def __init__(self, deadline: float | None, providers: Iterable[Provider], effort: Effort) -> None:
        """``deadline``: the value of time.monotonic() at which the time is over, or None for no end."""
        self.deadline, self.providers, self.effort = deadline, list(providers), effort
        self._taken = self._expected = 0.0

    def took(self, case: Case, seconds: float) -> None:
        """A case was measured in so many seconds."""
        self._taken += seconds
        self._expected += expected(case, self.providers, self.effort)

    def seconds(self, case: Case) -> float:
        """What the case takes, by how the estimates of those before it came true."""
        pace = self._taken / self._expected if self._expected else 1.0
        return pace * expected(case, self.providers, self.effort)

    def left(self) -> float:
        """Seconds until the deadline."""
        return float("inf") if self.deadline is None else self.deadline - time.monotonic()

    def fitting(self, cases: list[Case]) -> list[Case]:
        """The cases that fit together, of cases in the order of their worth; all, before anything was measured."""
        if self.deadline is None or not self._expected:
            return list(cases)
        left, fitting = self.left(), []
        for case in cases:
            seconds = self.seconds(case)
            if seconds <= left:
                left -= seconds
                fitting.append(case)
        return fitting
