"""The README's tables, from committed result files: wins and losses alike."""

import os
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from statistics import geometric_mean
from typing import NamedTuple

from . import machine, tables, units
from .providers import BASELINE, NULL, ONE_THREAD, TWICE
from .run import key
from .schema import Report, Row
from .suites import SUITES, label
from .timing import NULL_BAND

BEGIN, END = "<!-- benchmarks:begin -->", "<!-- benchmarks:end -->"
OURS = ("seqcells auto",)
"""What users get who choose nothing."""
LOADED = (*OURS, ONE_THREAD, TWICE)
# The suites of the README's tables, what a layer's user waits for and its memory, and whose rows stand there. All are
# in the result files.
SHOWN: dict[str, tuple[str, ...]] = {
    "sequence": OURS,
    "training": OURS,
    "streaming": (*OURS, "seqcells stream"),
    "stepping": (*OURS, "seqcells auto cell"),
    "packed": OURS,
    "stacked": OURS,
    "stacked-training": OURS,
    "loaded": LOADED,
    "loaded-training": LOADED,
    "loaded-streaming": LOADED,
    "memory": OURS,
}
UNDER_LOAD = " “loaded × 1”: everyone beside one busy process a core; ratios of means."
HEADER = ("suite", "cell", "dtype", "B × H × T", BASELINE, "seqcells", "× torch.nn", "best rival", "× rival", "÷ floor")


class Case(NamedTuple):
    """A row of ours, and the rows it is compared with."""

    ours: Row
    baseline: Row | None
    null: Row | None
    rival: Row | None
    """The best that is neither ours nor torch.nn."""

    @property
    def to_rival(self) -> float | None:
        return self.rival.figure.value / self.ours.figure.value if self.rival and self.ours.figure.value else None

    @property
    def doubtful(self) -> bool:
        """Whether torch.nn against itself was off there."""
        ratio = self.ours.origin.null if self.ours.origin else self.null and self.null.ratio
        return ratio is not None and abs(ratio - 1) > NULL_BAND and self.ours.unit == "s"


def write(paths: Iterable[Path], readme: Path, plots_folder: Path | None) -> int:
    """Put the newest report of each device between the README's markers; an exit status."""
    reports = newest(map(Report.load, paths))
    pictures = []
    if plots_folder:
        from . import plots

        for report in reports.values():
            pictures += plots.draw(report, plots_folder)
    text = readme.read_text()
    # One of each device and cell for the README; the folder has them all.
    pictures = [path for path in pictures if "-sequence-" in path.name and path.stem.endswith("float32-ratio")]
    links = [f"![{path.stem}]({os.path.relpath(path, readme.parent)})" for path in pictures]
    readme.write_text(between_markers(text, markdown(reports, links)))
    print(f"{readme}: {', '.join(f'{r.device} of {r.date[:10]}' for r in reports.values()) or 'nothing measured yet'}")
    return 0


def newest(reports: Iterable[Report]) -> dict[str, Report]:
    """The latest report of each device."""
    return {report.device: report for report in sorted(reports, key=lambda report: report.date)}


def between_markers(text: str, block: str) -> str:
    """``text`` with ``block`` between its markers; ValueError if it has none."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"no {BEGIN} … {END} to write between")
    return f"{before}{BEGIN}\n{block.strip()}\n{END}{after}"


def markdown(reports: dict[str, Report], links: Iterable[str] = ()) -> str:
    """A section for each device."""
    sections = [_section(reports[device]) for device in ("cpu", "cuda") if device in reports]
    if "cpu" not in reports:
        sections.insert(0, "Not yet measured on a CPU.")
    if "cuda" not in reports:
        sections.append("Not yet measured on a GPU.")
    return "\n\n".join([*sections, *links])


def cases(report: Report) -> list[Case]:
    """What of ours was measured in the suites that are shown."""
    found = []
    for (suite, *_), rows in groupby((row for row in report.rows if row.suite in SHOWN and row.figure), key):
        by_name = {row.provider: row for row in rows}
        others = [row for row in by_name.values() if not row.ours and row.provider not in (BASELINE, NULL)]
        rival = min(others, key=lambda row: row.figure.value, default=None)
        for name in filter(by_name.__contains__, SHOWN[suite]):
            found.append(Case(by_name[name], by_name.get(BASELINE), by_name.get(NULL), rival))
    return found


def _section(report: Report) -> str:
    version = report.versions.get("torch", "?")
    measured = dict.fromkeys(row.provider for row in report.rows if row.figure)
    found = cases(report)
    lines = [
        f"**{machine.title(report.machine)}**, {report.date[:10]}, commit {report.commit}, torch {version}; "
        f"{tables.null_line(report)}. Ratios of medians: above 1 seqcells is faster (or smaller), below 1 slower."
        + (UNDER_LOAD if any(SUITES[case.ours.suite].loads for case in found) else ""),
        "",
        *_summary(found),
        "",
        f"<details><summary>All {len(found)} of them</summary>",
        "",
        '“seqcells” is `backend="auto"`, in brackets what it took, or `layer.stream()`. `~`: torch.nn against itself '
        f"was off by more than 10 % there. Measured in this run: {', '.join(measured)}. All rows and plots: "
        "`benchmarks/results/`.",
        "",
        "| " + " | ".join(HEADER) + " |",
        "|" + "---|" * 4 + "---:|" * 3 + "---|" + "---:|" * 2,
        *("| " + " | ".join(_line(case)) + " |" for case in found),
        "",
        "</details>",
    ]
    return "\n".join([*lines, "", *(f"Note: {note}." for note in tables.notes(report, most=4))]).strip()


def _summary(found: list[Case]) -> list[str]:
    """A row for each suite and cell: for each dtype geometric means over its sizes, with the least and the most."""
    dtypes = list(dict.fromkeys(case.ours.dtype for case in found))
    columns = [(dtype, "× torch.nn") for dtype in dtypes]
    columns += [(dtype, "× best rival") for dtype in dtypes if any(c.rival and c.ours.dtype == dtype for c in found)]
    head = ["suite", "cell", "by", "sizes", *(f"{dtype} {what}" for dtype, what in columns)]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * 3 + "---:|" * (len(columns) + 1)]
    for kind in dict.fromkeys(map(_kind, found)):
        its = [case for case in found if _kind(case) == kind]
        sizes = len({(case.ours.batch, case.ours.hidden, case.ours.steps) for case in its})
        cells = []
        for dtype, what in columns:
            here = [case for case in its if case.ours.dtype == dtype]
            cells.append(_spread([c.ours.ratio if what.endswith(BASELINE) else c.to_rival for c in here]))
        suite, cell, provider = kind
        lines.append("| " + " | ".join([suite, cell, provider.removeprefix("seqcells "), str(sizes), *cells]) + " |")
    return lines


def _kind(case: Case) -> tuple[str, str, str]:
    """What has a row of its own in the summary."""
    return label(case.ours.suite, case.ours.load), case.ours.cell, case.ours.provider


def _spread(ratios: Iterable[float | None]) -> str:
    """``1.24× (0.98 to 2.61)``"""
    there = [ratio for ratio in ratios if ratio]
    if not there:
        return "–"
    mean = units.ratio(geometric_mean(there))
    return mean if len(there) == 1 else f"{mean} ({min(there):.2f} to {max(there):.2f})"


def _line(case: Case) -> list[str]:
    """In the table of all."""
    ours = case.ours
    took = (note.removeprefix("auto took ") for note in ours.notes if note.startswith("auto took "))
    how = next(took, ours.provider.removeprefix("seqcells "))

    def amount(row: Row | None) -> str:
        return units.amount(row.figure.value, row.unit) if row else "–"

    return [
        label(ours.suite, ours.load),
        ours.cell,
        ours.dtype,
        f"{ours.batch} × {ours.hidden} × {ours.steps}",
        amount(case.baseline),
        f"{amount(ours)} ({how})",
        ("~ " if case.doubtful else "") + units.ratio(ours.ratio),
        f"{case.rival.provider} {amount(case.rival)}" if case.rival else "–",
        units.ratio(case.to_rival),
        units.ratio(ours.distance),
    ]
