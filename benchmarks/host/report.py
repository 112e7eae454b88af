"""The result file of the suite ``host``, and its tables."""

from dataclasses import dataclass, field
from itertools import groupby

from .. import formats, machine, schema, tables
from ..suite_results import Record
from .calls import BATCH, FEATURES, HIDDEN, KINDS, STEPS
from .measure import IN_A_ROW

HEADER = ("provider", "median", "p20–p80", "× stub", "with kernels", "operators", "allocations", "launches", "plan")


@dataclass
class Row:
    """A provider's call of one kind."""

    kind: str
    """One of `calls.KINDS`, by name."""
    cell: str
    device: str
    """The device of the tensors."""
    provider: str
    """``stub``, ``torch.nn``, or ``seqcells`` and a backend."""
    operators: int
    allocations: int
    launches: int
    by_name: dict[str, int]
    """Counts of the operators by name."""
    plan: str = ""
    """For seqcells: how the call runs."""
    figure: schema.Figure | None = None
    """Seconds of a call, up to its launches; None where calls were only counted."""
    to_stub: float | None = None
    """The median divided by the stub's median."""
    with_kernels: schema.Figure | None = None
    """For the CPU engine: seconds of a call with its computation."""


@dataclass(kw_only=True)
class Report(Record):
    """One run of the suite."""

    WHAT = "host"

    absent: bool
    """Whether the GPU was emulated: launches of the Triton engine did nothing, and its tensors were on the CPU."""
    sizes: dict[str, int]
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    complete: bool = False

    @classmethod
    def begun(cls, device: str, command: str, absent: bool) -> "Report":
        """A report of this machine without rows."""
        sizes = {"steps": STEPS, "batch": BATCH, "features": FEATURES, "hidden": HIDDEN}
        return cls.made_here(device, 1, command, absent=absent, sizes=sizes)


def show(report: Report) -> None:
    """Print the report."""
    versions = ", ".join(f"{package} {version}" for package, version in report.versions.items())
    tables.say(f"{machine.title(report.machine)} · {versions} · commit {report.commit} · {report.date}")
    sizes = " ".join(f"{name} {size}" for name, size in report.sizes.items())
    tables.say(f"one layer, one direction, states given, float32; {sizes}; a sample is {IN_A_ROW} calls")
    for (kind, cell, device), rows in groupby(report.rows, lambda row: (row.kind, row.cell, row.device)):
        tables.table(f"{kind} · {cell} · tensors on {device}", HEADER, map(_line, rows), range(1, 8))
    for note in report.notes:
        tables.say(f"note: {note}")


def _line(row: Row) -> list[str]:
    limit = next(kind.limit for kind in KINDS if kind.name == row.kind)
    operators = f"{row.operators}" + (f" of {limit}" if row.provider.startswith("seqcells") else "")
    time = [""] * 4
    if row.figure:
        spread = " – ".join(map(formats.seconds, (row.figure.p20, row.figure.p80)))
        computed = formats.seconds(row.with_kernels.median) if row.with_kernels else ""
        time = [formats.seconds(row.figure.median), spread, formats.ratio(row.to_stub), computed]
    return [row.provider, *time, operators, str(row.allocations), str(row.launches), row.plan]
