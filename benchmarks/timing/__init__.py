"""How a figure is taken: `processes` on the CPU, `events` on CUDA. Both give `Outcome`s, a provider at a time."""

import time
from dataclasses import dataclass, field

from ..case import Case
from ..providers import BASELINE, NULL, Provider

NULL_BAND = 0.1
"""How far the null row may be from 1."""


@dataclass
class Outcome:
    """What came of one provider in one case."""

    provider: str
    ours: bool = False
    status: str = "ok"
    """``ok``, or why there is no figure: ``unavailable``, ``refused``, ``wrong`` or ``failed``."""
    reason: str | None = None
    error: float | None = None
    """Relative, against float64 truth."""
    figures: list[float] = field(default_factory=list)
    """Seconds of a call, or bytes in the memory suite: one for each sample."""
    calls: list[int] = field(default_factory=list)
    """How many calls each sample of seconds is the mean of."""
    graph_figures: list[float] = field(default_factory=list)
    """The same of a replayed CUDA graph."""
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Sampling:
    """What one turn of a provider consists of; lengths in seconds."""

    sample: float
    """The least that a sample lasts; shorter calls are timed several at a time."""
    warm_up: float
    """The least that untimed calls last before the samples: a process that was stopped has cold caches."""
    samples: int
    """In a turn, of calls shorter than a sample; of longer calls it is one."""
    effort: float = 1.0
    """How many times as long as `Effort.seconds` says."""
    by_clock: bool = False
    """Whether a sample and a warm-up end when their time is over, not after as many calls as should fill it."""

    def untimed(self, call: float) -> int:
        """How many calls of so many seconds warm up; none where cold caches are next to nothing of a call."""
        return max(1, int(self.warm_up / call)) if call < 0.1 else 0

    def samples_of(self, call: float) -> int:
        """How many samples of such calls a turn has."""
        return self.samples if call < self.sample else 1

    def turn(self, call: float) -> float:
        """Seconds of a turn of such calls."""
        return self.untimed(call) * call + self.samples_of(call) * max(call, self.sample)


@dataclass(frozen=True)
class Effort:
    """How long to measure."""

    seconds: float = 0.4
    """For each provider in a case, roughly; whoever is slow gets `fewest` turns nevertheless."""
    fewest: int = 5
    most: int = 25
    extensions: int = 2
    """How often a case whose null row is off is measured on."""
    band: float = NULL_BAND
    """How far from 1 that is."""

    def turns(self, call: float, sampling: Sampling) -> int:
        """How many a provider gets whose calls take so many seconds."""
        wanted = round(self.seconds * sampling.effort / sampling.turn(call))
        return min(max(wanted, self.fewest), self.most)


ALONE = Sampling(sample=4e-3, warm_up=1e-3, samples=3)
# A scheduler's slice is 3 to 4 ms, so a sample spans a dozen rounds of slices. The scheduler favours a process that
# slept for some slices, which the warm-up takes up. Calls vary so much that no number of calls would fill a time.
SHARED = Sampling(sample=0.1, warm_up=0.03, samples=1, effort=3.0, by_clock=True)

# Of a GPU that is at hand for some minutes.
MINUTES = Effort(seconds=0.06, extensions=3, band=0.03)
SHORT, QUICK, FULL = Effort(seconds=0.06, extensions=1), Effort(seconds=0.3, extensions=1), Effort(seconds=0.8, most=40)


def why_not_measured(
    provider: Provider, unavailable: str | None, case: Case, deadline: float | None
) -> tuple[str, str] | None:
    """A provider's status in a case and the reason, where it is not to be measured there; the baseline always is."""
    late = None if provider.name in (BASELINE, NULL) else out_of_time(deadline)
    ladder = ("unavailable", unavailable), ("refused", provider.refuses(case)), ("refused", late)
    return next(((status, reason) for status, reason in ladder if reason), None)


def out_of_time(deadline: float | None) -> str | None:
    """Why nothing more is begun, or None."""
    return "out of time" if deadline is not None and time.monotonic() > deadline else None
