"""How a figure is taken: `processes` on the CPU, `events` on CUDA. Both give `Outcome`s, a provider at a time."""

import time
from dataclasses import dataclass, field


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
    """Seconds, or bytes in the memory suite: one for each sample."""
    graph_figures: list[float] = field(default_factory=list)
    """The same of a replayed CUDA graph."""
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Effort:
    """How long to measure."""

    seconds: float = 0.4
    """For each provider in a case, roughly; whoever is slow gets `fewest` turns nevertheless."""
    fewest: int = 5
    most: int = 25
    extensions: int = 2
    """How often a case whose null row is off is measured on."""


SHORT, QUICK, FULL = Effort(seconds=0.06, extensions=1), Effort(seconds=0.3, extensions=1), Effort(seconds=0.8, most=40)
NULL_BAND = 0.1
"""How far the null row may be from 1."""


def out_of_time(deadline: float | None) -> str | None:
    """Why nothing more is begun, or None."""
    return "out of time" if deadline is not None and time.monotonic() > deadline else None
