"""Compares two result files: what became faster, what became slower, and what may be noise."""

from pathlib import Path

from . import formats, machine, tables
from .providers import BASELINE
from .run import key
from .schema import Report, Row
from .suites import label

HEADER = ("suite", "cell", "dtype", "B × H × T", "provider", "before", "after", "×", "× / torch.nn's ×", "")


def show(before: Path, after: Path) -> int:
    """Print the comparison and return an exit status."""
    one, two = Report.load(before), Report.load(after)
    for name, report in ((before, one), (after, two)):
        tables.say(f"{name}: {machine.title(report.machine)}, commit {report.commit}, {report.date}")
        tables.say(f"  {tables.aa_line(report)}")
    if machine.title(one.machine) != machine.title(two.machine):
        tables.say("not the same machine: only the ratios to torch.nn's own change mean something")
    lines = compared(one, two)
    if not lines:
        tables.say("they have no case in common")
        return 1
    tables.table("before and after (above 1×: faster, or smaller)", HEADER, lines, right={5, 6, 7, 8})
    return 0


def compared(before: Report, after: Report) -> list[list[str]]:
    """A line for each row that has a figure in both reports, the largest change first."""
    old = {(*key(row), row.provider): row for row in before.rows if row.figure}
    pairs = [(old[k], row) for row in after.rows if row.figure and (k := (*key(row), row.provider)) in old]
    # torch.nn's own change between the two runs is due to the machine.
    drift = {key(new): _change(was, new) for was, new in pairs if new.provider == BASELINE}
    pairs.sort(key=lambda pair: max(_change(*pair), 1 / _change(*pair)), reverse=True)
    return [
        [
            label(new.suite, new.load),
            new.cell,
            new.dtype,
            f"{new.batch} × {new.hidden} × {new.steps}",
            new.provider,
            formats.amount(was.figure.value, was.unit),
            formats.amount(new.figure.value, new.unit),
            formats.ratio(_change(was, new)),
            formats.ratio(_change(was, new) / drift[key(new)]) if key(new) in drift else "",
            _verdict(was, new),
        ]
        for was, new in pairs
    ]


def _change(was: Row, new: Row) -> float:
    # One byte is added to each figure, so that a figure of zero bytes can be compared.
    return (was.figure.value + (was.unit == "B")) / (new.figure.value + (new.unit == "B"))


def _verdict(was: Row, new: Row) -> str:
    """The figures differ if the p20–p80 ranges of the two runs do not overlap."""
    if new.figure.p80 < was.figure.p20:
        return "faster" if new.unit == "s" else "smaller"
    if new.figure.p20 > was.figure.p80:
        return "slower" if new.unit == "s" else "larger"
    return "within the noise"
