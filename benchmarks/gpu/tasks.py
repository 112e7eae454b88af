"""The tasks of a session's processes: ``python -m benchmarks.gpu.tasks NAME JSON``. An event is a line of JSON."""

import json
import os
import sys
from collections.abc import Iterator
from typing import Any

from ..timing.worker import die_with_parent

MARK = "@ "
"""Marks each event line, because libraries print too."""


WHEELS = "SEQCELLS_BENCHMARK_WHEELS"
"""An environment variable: the folder with unpacked wheels of rivals, searched after all installed packages."""


def environment(dtypes: list[str], rehearsal: bool) -> Iterator[dict[str, Any]]:
    """The machine, the versions of libraries, and the rooflines."""
    from .. import machine, rooflines

    device = "cpu" if rehearsal else "cuda"
    yield {"machine": machine.describe(device, 1), "versions": machine.versions()}
    if not rehearsal:
        yield {"rooflines": rooflines.measure(device, 1, dtypes)}


def compiling(**given: Any) -> Iterator[dict[str, Any]]:
    from .compiling import compiled

    return compiled(**given)


def timing(**given: Any) -> Iterator[dict[str, Any]]:
    from .time_cases import timed

    return timed(**given)


def models(**given: Any) -> Iterator[dict[str, Any]]:
    from .models import measured

    return measured(**given)


def clusters(**given: Any) -> Iterator[dict[str, Any]]:
    from .clusters import measured

    return measured(**given)


def tests(arguments: list[str], first: list[str]) -> Iterator[dict[str, Any]]:
    """Run pytest in this process, so that it ends with the session. Tests named in ``first`` run first."""
    import pytest

    class First:
        @pytest.hookimpl(trylast=True)
        def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
            items.sort(key=lambda item: item.nodeid not in first)

    sys.exit(pytest.main(arguments, plugins=[First()]))
    yield


TASKS = {task.__name__: task for task in (environment, compiling, timing, models, clusters, tests)}


def command(name: str, **given: Any) -> list[str]:
    """The command line of a process that does a task."""
    return [sys.executable, "-u", "-m", __name__, name, json.dumps(given)]


def event(line: str) -> dict[str, Any] | None:
    """The event in a line, or None if the line has no event."""
    return json.loads(line.removeprefix(MARK)) if line.startswith(MARK + "{") else None


if __name__ == "__main__":
    die_with_parent()
    sys.path += filter(None, [os.environ.get(WHEELS)])
    for each in TASKS[sys.argv[1]](**json.loads(sys.argv[2])):
        print(f"\n{MARK}{json.dumps(each)}", flush=True)
