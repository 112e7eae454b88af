"""The README's table, from committed result files: wins and losses alike."""

import os
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

from . import machine, tables, units
from .providers import BASELINE, NULL
from .run import key
from .schema import Report, Row
from .timing import NULL_BAND

BEGIN, END = "<!-- benchmarks:begin -->", "<!-- benchmarks:end -->"
OURS = ("seqcells auto", "seqcells stream")
"""What users get who choose nothing, and what they get who stream."""
SHOWN = ("sequence", "training", "streaming", "packed")
"""The suites of the README's table: what a layer's user waits for. The others are in the result files."""
HEADER = ("suite", "cell", "dtype", "B × H × T", BASELINE, "seqcells", "× torch.nn", "best rival", "× rival", "÷ floor")


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
    pictures = [path for path in pictures if "-sequence-" in path.name and path.stem.endswith("-ratio")]
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


def _section(report: Report) -> str:
    version = report.versions.get("torch", "?")
    measured = dict.fromkeys(row.provider for row in report.rows if row.figure)
    lines = [
        f"**{machine.title(report.machine)}**, {report.date[:10]}, commit {report.commit}, torch {version}. "
        f'Medians; {tables.null_line(report)}. “seqcells” is `backend="auto"`, in brackets what it '
        "took, or `layer.stream()`; above 1 it is faster, below 1 slower. `~`: torch.nn against itself was off by more "
        f"than 10 % there. Measured in this run: {', '.join(measured)}. All rows and plots: `benchmarks/results/`.",
        "",
        "| " + " | ".join(HEADER) + " |",
        "|" + "---|" * 4 + "---:|" * 3 + "---|" + "---:|" * 2,
    ]
    for _, rows in groupby((row for row in report.rows if row.suite in SHOWN), key):
        case = list(rows)
        for cells in filter(None, (_line(case, name) for name in OURS)):
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *(f"Note: {note}." for note in report.notes)]).strip()


def _line(rows: list[Row], name: str) -> list[str] | None:
    """A case in the README's table, if that row of ours was measured in it."""
    by_name = {row.provider: row for row in rows}
    ours, baseline, null = by_name.get(name), by_name.get(BASELINE), by_name.get(NULL)
    if ours is None or ours.figure is None:
        return None
    rivals = [row for row in rows if row.figure and not row.ours and row.provider not in (BASELINE, NULL)]
    best = min(rivals, key=lambda row: row.figure.median, default=None)
    doubtful = null is not None and null.ratio is not None and abs(null.ratio - 1) > NULL_BAND and null.unit == "s"
    took = (note.removeprefix("auto took ") for note in ours.notes if note.startswith("auto took "))
    how = next(took, name.removeprefix("seqcells "))

    def amount(row: Row | None) -> str:
        return units.amount(row.figure.median, row.unit) if row and row.figure else "–"

    return [
        ours.suite,
        ours.cell,
        ours.dtype,
        f"{ours.batch} × {ours.hidden} × {ours.steps}",
        amount(baseline),
        f"{amount(ours)} ({how})",
        ("~ " if doubtful else "") + units.ratio(ours.ratio),
        f"{best.provider} {amount(best)}" if best else "–",
        units.ratio(best.figure.median / ours.figure.median) if best and ours.figure.median else "",
        units.ratio(ours.distance),
    ]
