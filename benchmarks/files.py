"""Where results are kept, and how a file of them is written."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
HOST, CELLS, KERAS, INTEGRATIONS = OTHERS = "host", "cells", "keras", "integrations"
"""What results of the commands of these names begin with, whose files are none of the benchmark's own."""


def named(what: str, date: str, commit: str) -> Path:
    """A new file among the results, named by a device, or suite, and when and by what it was measured."""
    return RESULTS / f"{what}-{date[:10]}-{commit.replace('-dirty', '+')}.json"


def reports() -> list[Path]:
    """The benchmark's own among the results."""
    return sorted(path for path in RESULTS.glob("*.json") if path.name.partition("-")[0] not in OTHERS)


def last(what: str) -> Path | None:
    """The newest result that begins so; None where there is none."""
    return max(RESULTS.glob(f"{what}-*.json"), key=lambda path: json.loads(path.read_text())["date"], default=None)


def write(report: Any, path: str | Path) -> None:
    """A dataclass as JSON, whole or not at all, so that a run cut short leaves the last whole one."""
    text = json.dumps(dataclasses.asdict(report), indent=1)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text + "\n")
    temporary.replace(path)
