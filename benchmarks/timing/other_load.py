"""The share of the machine that other programs take while we measure (Linux)."""

import os
from collections.abc import Iterable
from pathlib import Path


class Others:
    """Measures from its construction on."""

    def __init__(self, ours: Iterable[int]) -> None:
        self.ours = [os.getpid(), *ours]
        self.before = self._times()

    def share(self) -> float | None:
        """The other programs' share of the processors' time, 0 to 1; None where it cannot be known."""
        after = self._times()
        if self.before is None or after is None or after[1] <= self.before[1]:
            return None
        theirs, possible = (b - a for a, b in zip(self.before, after, strict=True))
        return min(1.0, max(0.0, theirs / possible))

    def _times(self) -> tuple[float, float] | None:
        """Busy time of other programs, and all time, in ticks."""
        try:
            fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
            idle = fields[3] + fields[4]
            mine = 0
            for pid in self.ours:
                stat = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
                mine += int(stat[11]) + int(stat[12])
            return sum(fields) - idle - mine, sum(fields)
        except (OSError, ValueError, IndexError):
            return None
