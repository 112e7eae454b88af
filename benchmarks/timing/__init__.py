"""Timing: `processes` on the CPU, `events` on CUDA. Both give `Outcome`s, one provider at a time."""

import time
from dataclasses import dataclass, field

from ..case import Case
from ..providers import AA, BASELINE, Provider

AA_BAND = 0.1
"""The largest distance of the A/A row's ratio from 1."""


@dataclass
class Outcome:
    """The result of one provider in one case."""

    provider: str
    ours: bool = False
    status: str = "ok"
    """``ok``, or why there is no figure: ``unavailable``, ``refused``, ``wrong`` or ``failed``."""
    reason: str | None = None
    error: float | None = None
    """The relative error against the float64 result."""
    figures: list[float] = field(default_factory=list)
    """Seconds of a call, or bytes in the memory suite: one for each sample."""
    calls: list[int] = field(default_factory=list)
    """For each sample of seconds: the number of calls of which it is the mean."""
    graph_figures: list[float] = field(default_factory=list)
    """Seconds of the replay as a CUDA graph, for each sample."""
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Sampling:
    """What one turn of a provider consists of; times are in seconds."""

    sample: float
    """The least time of a sample; shorter calls are timed several at a time."""
    warm_up: float
    """The least time of untimed calls before the samples, because a process that was stopped has cold caches."""
    samples: int
    """Samples in a turn, for calls shorter than a sample; longer calls have one."""
    effort: float = 1.0
    """A factor of `Effort.seconds`."""
    by_clock: bool = False
    """Whether a sample and a warm-up end when their time is over, rather than after a planned number of calls."""

    def untimed(self, call: float) -> int:
        """How many calls of ``call`` seconds warm up; none where cold caches matter little, in long calls."""
        return max(1, int(self.warm_up / call)) if call < 0.1 else 0

    def samples_of(self, call: float) -> int:
        """How many samples a turn has, for calls of ``call`` seconds."""
        return self.samples if call < self.sample else 1

    def turn(self, call: float) -> float:
        """Seconds of a turn, for calls of ``call`` seconds."""
        return self.untimed(call) * call + self.samples_of(call) * max(call, self.sample)


@dataclass(frozen=True)
class Effort:
    """How long to measure."""

    seconds: float = 0.4
    """Seconds for each provider in a case, roughly; a slow provider still gets `fewest` turns."""
    fewest: int = 5
    most: int = 25
    extensions: int = 2
    """How often the measurement of a case is continued or repeated while its A/A row is off."""
    band: float = AA_BAND
    """The distance from 1 at which the A/A row is off."""

    def turns(self, call: float, sampling: Sampling) -> int:
        """How many turns a provider gets whose calls take ``call`` seconds."""
        wanted = round(self.seconds * sampling.effort / sampling.turn(call))
        return min(max(wanted, self.fewest), self.most)


ALONE = Sampling(sample=4e-3, warm_up=1e-3, samples=3)
# A scheduler's slice is 3 to 4 ms, so a sample spans a dozen rounds of slices. The scheduler favours a process that
# slept for some slices; the warm-up uses this advantage up. Calls vary so much that no planned number of calls would
# fill a sample.
SHARED = Sampling(sample=0.1, warm_up=0.03, samples=1, effort=3.0, by_clock=True)

# For a GPU that is available for some minutes.
MINUTES = Effort(seconds=0.06, extensions=3, band=0.03)
SHORT, QUICK, FULL = Effort(seconds=0.06, extensions=1), Effort(seconds=0.3, extensions=1), Effort(seconds=0.8, most=40)


def why_not_measured(
    provider: Provider, unavailable: str | None, case: Case, deadline: float | None
) -> tuple[str, str] | None:
    """The status and the reason, if a provider is not to be measured in a case. The deadline never excludes the
    baseline."""
    late = None if provider.name in (BASELINE, AA) else out_of_time(deadline)
    ladder = ("unavailable", unavailable), ("refused", provider.why_not(case)), ("refused", late)
    return next(((status, reason) for status, reason in ladder if reason), None)


def out_of_time(deadline: float | None) -> str | None:
    """Why nothing more is begun, or None."""
    return "out of time" if deadline is not None and time.monotonic() > deadline else None
