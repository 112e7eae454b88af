"""The time and the result file of a session. Each result is in the file before the next measurement begins."""

import os
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .. import machine, run
from ..schema import Report, Row, Stage
from . import children, merge, tasks

RESULT, LOG = "result.json", "log.txt"
EXTRA = 3.0
"""Seconds that a process gets to end by itself after its time is over."""


class Session:
    """What the stages share.

    Args:
        folder: gets the result file and a log of all processes. An existing result file is continued.
        seconds: how long all stages may take together.
        cores: how many processes run at once.
        prototype: a program in CUDA that prints figures to compare the cluster plan with.

    Raises:
        ValueError: the result file in the folder is of another machine, or only one of the two is a rehearsal.
    """

    def __init__(
        self, folder: Path, seconds: float, rehearsal: bool, cores: int, prototype: Path | None = None
    ) -> None:
        self.folder, self.rehearsal, self.cores, self.prototype = folder, rehearsal, cores, prototype
        self.deadline = time.monotonic() + seconds
        self.path = folder / RESULT
        self.commit = machine.commit()
        if self.commit == "unknown" or self.commit.endswith("-dirty"):
            self.commit += f"-{machine.sources()}"
        self.codes: dict[tuple[int, str], str] = {}
        """By case index and provider: the digest that the stage `compiling` reported."""
        self.report = self._begin()

    def _begin(self) -> Report:
        device = "cpu" if self.rehearsal else "cuda"
        words = " ".join(["python -m benchmarks.gpu", *sys.argv[1:]])
        report = run.start(device, 1, words, {})
        report.commit, report.rehearsal = self.commit, self.rehearsal
        if not self.path.exists():
            return report
        before = Report.load(self.path)
        if before.rehearsal != report.rehearsal or before.machine.get("gpu") != report.machine.get("gpu"):
            raise ValueError(f"{self.path} is of another machine, or of a rehearsal: give another folder")
        report.rooflines, report.stages = before.rooflines, before.stages
        report.rows, report.aa = before.rows, before.aa
        report.tests, report.models, report.clusters = before.tests, before.models, before.clusters
        report.left_out, report.notes = before.left_out, before.notes
        return report

    def left(self) -> float:
        """Seconds until the deadline."""
        return max(0.0, self.deadline - time.monotonic())

    def say(self, words: str) -> None:
        """Print a line in the terminal only."""
        print(words, flush=True)

    def note(self, words: str) -> None:
        """Print a line in the terminal and add it to the file's notes."""
        self.say(words)
        if words not in self.report.notes:
            self.report.notes.append(words)

    def put(self, row: Row) -> None:
        """Add a row that was just measured, and save the file."""
        merge.put(self.report.rows, row)
        self.save()

    def end(self, name: str, stage: Stage) -> None:
        """Record the end of a stage."""
        self.report.stages[name] = stage
        self.save()

    def save(self) -> None:
        """Write the file, in one atomic step."""
        run.relate(self.report)
        self.report.rows.sort(key=run.place)
        self.report.save(self.path)

    def events(self, name: str, within: float, **given: Any) -> Iterator[dict[str, Any]]:
        """The events of one process for a task, within ``within`` seconds.

        The last event is ``{"ended": code}``; the code is None if the process was stopped.
        """
        return (event for _, event in self.all_events({name: tasks.command(name, **given)}, within))

    def all_events(self, commands: Mapping[str, list[str]], seconds: float) -> Iterator[tuple[str, dict[str, Any]]]:
        """The events of several processes, each with the name of its process."""
        for heard in self.heard(commands, seconds):
            event = {"ended": heard.code} if heard.line is None else tasks.event(heard.line)
            if event is not None:
                yield heard.name, event

    def heard(self, commands: Mapping[str, list[str]], seconds: float) -> Iterator[children.Heard]:
        """All output of several processes; as many run at once as there are cores."""
        environment = {"TRITON_INTERPRET": "1"} if self.rehearsal else {}
        if self.rehearsal or len(commands) > 1:
            environment |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        at_once = max(1, min(self.cores, len(commands)))
        return children.run(commands, at_once, seconds, self.folder / LOG, environment)


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
