"""The result file of the suite ``integrations``, and its table."""

from dataclasses import dataclass, field

from .. import formats, machine, schema, tables
from ..suite_results import Record

THEIRS, OURS = "torch.nn", "seqcells"
HEADER = ("package", "model", "torch.nn", "seqcells", "×", "loss differs by")


@dataclass
class Row:
    """A model's training step, with torch.nn's layers and with ours."""

    package: str
    version: str
    model: str
    layers: int
    """The number of layers and cells that were swapped."""
    adapted: bool
    """Whether an adapter calls the layers."""
    backends: list[str]
    """The backends that our layers chose in the step."""
    difference: float
    """The greatest relative difference of the first losses."""
    theirs: schema.Figure
    ours: schema.Figure

    @property
    def ratio(self) -> float:
        """How many times as fast the model is with our layers."""
        return self.theirs.median / self.ours.median


@dataclass
class Curve:
    """The learning curve of an algorithm, with torch.nn's layers or with ours, from one seed."""

    provider: str
    seed: int = 0
    frames: list[int] = field(default_factory=list)
    returns: list[float] = field(default_factory=list)
    """The mean return of the last 100 episodes, after each number of frames."""
    seconds: list[float] = field(default_factory=list)
    """Seconds since the beginning."""

    @property
    def rate(self) -> float:
        """Frames a second."""
        return self.frames[-1] / self.seconds[-1]


@dataclass(kw_only=True)
class Report(Record):
    """One run of the suite."""

    WHAT = "integrations"

    rows: list[Row] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)
    """Packages that could not be imported, with the reason."""


def show(report: Report) -> None:
    """Print the tables."""
    versions = ", ".join(f"{package} {version}" for package, version in report.versions.items())
    tables.say(f"{machine.title(report.machine)} · {versions} · commit {report.commit} · {report.date}")
    tables.table("a step of training", HEADER, [_line(row) for row in report.rows], range(2, 6))
    for curve in report.curves:
        told = f"{curve.rate:.0f} frames a second, returns {[round(each) for each in curve.returns]}"
        tables.say(f"RecurrentPPO by {curve.provider}, seed {curve.seed}: {told}")
    for package, why in report.absent.items():
        tables.say(f"note: {package}: {why}")


def _line(row: Row) -> list[str]:
    times = [formats.seconds(figure.median) for figure in (row.theirs, row.ours)]
    return [f"{row.package} {row.version}", row.model, *times, formats.ratio(row.ratio), f"{row.difference:.0e}"]
