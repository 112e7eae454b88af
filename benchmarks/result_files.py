"""The folder of results, and how a result file is written."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
HOST, CELLS, KERAS, INTEGRATIONS = OTHERS = "host", "cells", "keras", "integrations"
"""The prefixes of result files that other commands write; the benchmark's own files start with a device."""


def named(what: str, date: str, commit: str) -> Path:
    """The path of a new result file, named by device or suite, date and commit."""
    return RESULTS / f"{what}-{date[:10]}-{commit.replace('-dirty', '+')}.json"


def reports() -> list[Path]:
    """The result files of the benchmark itself."""
    return sorted(path for path in RESULTS.glob("*.json") if path.name.partition("-")[0] not in OTHERS)


def last(what: str) -> Path | None:
    """The newest result file with this prefix, or None."""
    return max(RESULTS.glob(f"{what}-*.json"), key=lambda path: json.loads(path.read_text())["date"], default=None)


def write(report: Any, path: str | Path) -> None:
    """Write a dataclass as JSON, in one atomic step, so that an interrupted run leaves the last complete file."""
    text = json.dumps(dataclasses.asdict(report), indent=1)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text + "\n")
    temporary.replace(path)
