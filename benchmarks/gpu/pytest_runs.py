"""The tests on a GPU: a pytest process for each file, earlier failures first, each failure reported at once."""

import re
from pathlib import Path

from ..schema import TestFile
from . import tasks

ROOT = Path(__file__).parents[2]
ON_A_GPU = "cuda and not exhaustive"
REHEARSED = "tests/test_machine.py"
RESULT = re.compile(r"^(tests/\S+?\.py)(::.+?) (PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS)(?= |$)")
ENDED = (0, 1, 5)
"""pytest's exit codes of a complete run: all passed, some failed, nothing to run."""


def files(rehearsal: bool, known: dict[str, TestFile], commit: str) -> list[str]:
    """The test files without a complete run at this commit. Files with earlier failures come first, then the slowest
    files."""
    everything = (str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("test_*.py"))
    found = [REHEARSED] if rehearsal else everything
    waiting = [file for file in found if file not in known or known[file].commit != commit or known[file].words]

    def worth(file: str) -> tuple:
        before = known.get(file)
        size = (ROOT / file).stat().st_size
        return (not (before and before.failed), -before.seconds if before else 0.0, -size)

    return sorted(waiting, key=worth)


def command(file: str, failed_before: list[str], rehearsal: bool) -> list[str]:
    """The command of a process that runs a file, with the tests that failed before first."""
    arguments = ["-v", "--tb=short", "-p", "no:cacheprovider", "-rfE", "--color=no"]
    if not rehearsal:
        arguments += ["-m", ON_A_GPU]
    return tasks.command("tests", arguments=[*arguments, file], first=failed_before)


class Outcomes:
    """Counts the outcomes in the output of a file's process."""

    def __init__(self, file: str, commit: str) -> None:
        self.file, self.result = file, TestFile(commit=commit, seconds=0.0)
        self._lacking: str | None = None

    def hear(self, line: str) -> str | None:
        """Read a line of output; return the name of a test if the line reports its first failure."""
        if missing := re.search(r"ModuleNotFoundError: No module named '(\w+)'", line):
            self._lacking = missing[1]
        found = RESULT.match(line)
        if not found:
            return None
        name, outcome = found[1] + found[2], found[3]
        if outcome in ("FAILED", "ERROR"):
            if name not in self.result.failed:
                self.result.failed.append(name)
                return name
        elif outcome == "SKIPPED":
            self.result.skipped += 1
        else:
            self.result.passed += 1
        return None

    def end(self, code: int | None, seconds: float) -> TestFile:
        """The file's result, once its process has ended with an exit code; None: the process was stopped."""
        self.result.seconds = round(seconds, 2)
        counted = self.result.passed + self.result.skipped + len(self.result.failed)
        if code is None:
            self.result.words = "stopped: the time was over" if counted else "not begun: the time was over"
        elif self._lacking and not counted:
            self.result.words = f"not run: it needs {self._lacking}, which is not installed"
        elif code not in ENDED:
            self.result.words = f"its process ended with code {code}"
        return self.result
