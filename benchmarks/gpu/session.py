"""A session's time and its file: whatever a stage finds is in the file before the next thing is begun."""

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
"""Seconds that a process has to end by itself, when the time that it was told is over."""


class Session:
    """What the stages share.

    Args:
        folder: gets the result file and a log of all processes. A result file that is there is continued.
        seconds: how long all stages may take together.
        cores: how many processes run at once.
        prototype: a program in CUDA that prints figures to compare the cluster plan with.

    Raises:
        ValueError: for a folder with what another machine, or a rehearsal, has found, or none has.
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
        """By a case's index and the provider, what `compiling` found."""
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
        report.floors, report.stages = before.floors, before.stages
        report.rows, report.null = before.rows, before.null
        report.tests, report.models, report.clusters = before.tests, before.models, before.clusters
        report.left_out, report.notes = before.left_out, before.notes
        return report

    def left(self) -> float:
        """Seconds."""
        return max(0.0, self.deadline - time.monotonic())

    def say(self, words: str) -> None:
        """A line, in the terminal alone."""
        print(words, flush=True)

    def note(self, words: str) -> None:
        """A line, in the terminal and in the file."""
        self.say(words)
        if words not in self.report.notes:
            self.report.notes.append(words)

    def put(self, row: Row) -> None:
        """A row that was measured just now, in the file at once."""
        merge.put(self.report.rows, row)
        self.save()

    def end(self, name: str, stage: Stage) -> None:
        """A stage has come to its end."""
        self.report.stages[name] = stage
        self.save()

    def save(self) -> None:
        """Whole or not at all."""
        run.relate(self.report)
        self.report.rows.sort(key=run.place)
        self.report.save(self.path)

    def events(self, name: str, within: float, **given: Any) -> Iterator[dict[str, Any]]:
        """Those of one process for a task, ``within`` so many seconds.

        The last one is ``{"ended": code}``, of a stopped process None.
        """
        return (event for _, event in self.all_events({name: tasks.command(name, **given)}, within))

    def all_events(self, commands: Mapping[str, list[str]], seconds: float) -> Iterator[tuple[str, dict[str, Any]]]:
        """Those of several processes, with the names of the processes."""
        for heard in self.heard(commands, seconds):
            event = {"ended": heard.code} if heard.line is None else tasks.event(heard.line)
            if event is not None:
                yield heard.name, event

    def heard(self, commands: Mapping[str, list[str]], seconds: float) -> Iterator[children.Heard]:
        """All that several processes write; so many run at once as there are cores."""
        environment = {"TRITON_INTERPRET": "1"} if self.rehearsal else {}
        if self.rehearsal or len(commands) > 1:
            environment |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        at_once = max(1, min(self.cores, len(commands)))
        return children.run(commands, at_once, seconds, self.folder / LOG, environment)


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
