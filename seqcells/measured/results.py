"""A table of estimates, made from the rows of a benchmark's result file (`benchmarks/schema.py`).

The result file has torch's own operator as torch.nn's module. It has our kernels by the backend's name, or as ``auto``
where ``auto`` chose them.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..system import machine
from .table import KERNELS, Point, Table

INSTRUCTION_SETS = {
    "amx_bf16": "amxbf16",
    "avx512_bf16": "avx512bf16",
    "avx512f": "avx512",
    "avx2": "avx2",
}
"""Processor flags, and the instruction set that the CPU engine takes for the first flag that a processor has.

Older result files do not have the name of the instruction set.
"""
THEIRS = {"torch.nn": "layers", "torch.nn cell loop": "step"}
OURS = {"seqcells {}": "layers", "seqcells auto": "layers", "seqcells auto cell": "step"}
"""Providers, and the forms of their calls; ``{}`` is the backend of our kernels. Only streaming has the form "step"."""
SUITES = {"sequence": False, "training": True, "streaming": False}
"""The suites whose rows are read, and whether they compute gradients.

A figure of streaming is the time of a single step. The packed suite is not read: it gives our kernels lengths, which is
another call than torch.nn's.
"""
VERSIONS: dict[str, tuple[str, ...]] = {"cpu": ("python", "torch"), "cuda": ("python", "torch", "triton")}
"""The packages whose versions matter for the seconds, by type of device."""


def table(path: str | Path) -> Table:
    """The table of all points at which both torch's operator and our kernels were measured.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is no result file, or has no such point.
    """
    path = Path(path)
    try:
        given = json.loads(path.read_text())
        device, described = given["device"], given["machine"]
        ours = KERNELS[device]
        providers = {name.format(ours): form for name, form in OURS.items()}
        found = {"torch": dict(_rows(given, THEIRS, ours)), ours: dict(_rows(given, providers, ours))}
        common = [point for point in found["torch"] if point in found[ours]]
        if not common:
            raise ValueError("it has no point at which torch's operator and ours ran")
        return Table(
            machine_class=(_gpu_class if device == "cuda" else _cpu_class)(described),
            processor=described["gpu" if device == "cuda" else "cpu"],
            threads=described["threads"],
            versions={name: given["versions"][name] for name in VERSIONS[device]},
            date=given["date"],
            commit=given["commit"],
            source=path.name,
            complete=given["complete"],
            points={point: {backend: times[point] for backend, times in found.items()} for point in common},
        )
    except (ValueError, TypeError, KeyError) as problem:
        raise ValueError(f"{path} gives no table of estimates: {problem!r}") from None


def _cpu_class(described: dict[str, Any]) -> str:
    guessed = next((name for flag, name in INSTRUCTION_SETS.items() if flag in described["flags"]), "portable")
    l2 = described.get("caches", {}).get("l2", 0)
    return machine.machine_class(described.get("instruction_set") or guessed, l2)


def _gpu_class(described: dict[str, Any]) -> str:
    return machine.gpu_class(described["gpu"], described["gpu_multiprocessors"])


def _rows(given: dict[str, Any], providers: dict[str, str], ours: str) -> Iterator[tuple[Point, float]]:
    """The points of the providers and their seconds, without the rows in which ``auto`` chose torch's operator."""
    for row in given["rows"]:
        form = providers.get(row["provider"])
        single = row["suite"] == "streaming"
        if row["suite"] not in SUITES or form is None or row["status"] != "ok" or (form == "step" and not single):
            continue
        if " auto" in row["provider"] and f"auto took {ours}" not in row["notes"]:
            continue
        steps = 1 if single else row["steps"]
        sizes = steps, row["batch"], row["hidden"]
        yield Point(row["cell"], form, SUITES[row["suite"]], row["dtype"], *sizes), row["figure"]["median"]
