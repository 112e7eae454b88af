"""Writes pages from result files: all rows to RESULTS.md, eight rows to the README. Wins and losses are both shown."""

import os
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from statistics import geometric_mean
from typing import NamedTuple

from . import formats, machine, tables
from .providers import AA, BASELINE, ONE_THREAD, TWICE
from .run import key
from .schema import Report, Row
from .suites import SUITES, label
from .timing import AA_BAND

BEGIN, END = "<!-- benchmarks:begin -->", "<!-- benchmarks:end -->"
OURS = ("seqcells auto",)
"""The provider that users get by default."""
LOADED = (*OURS, ONE_THREAD, TWICE)
# The suites of RESULTS.md, and the providers with rows there. These suites time what a layer's user waits for, or
# measure its memory. The result files have all suites.
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


class Headline(NamedTuple):
    """A row of the README's table: its text, and which rows of a report it summarizes."""

    words: str
    device: str
    suite: str
    provider: str = OURS[0]
    cell: str = "lstm"
    load: float = 0.0


HEADLINES = (
    Headline("inference over a sequence", "cpu", "sequence"),
    Headline("training step", "cpu", "training"),
    Headline("one time step a call, `layer.stream()`", "cpu", "streaming", "seqcells stream"),
    Headline("cell in a Python loop", "cpu", "stepping", "seqcells auto cell"),
    Headline("sequences of different lengths", "cpu", "packed"),
    Headline("inference beside one busy process a core", "cpu", "loaded", load=1.0),
    Headline("inference over a sequence", "cuda", "sequence"),
    Headline("training step", "cuda", "training"),
)
"""The rows for the LSTM, the same for every report, so that no row is chosen by its figure."""
RESULTS_PAGE = """# Results

`python -m benchmarks report` writes this page from the newest result file of each device in `benchmarks/results/`.

{}
"""
UNDER_LOAD = " “loaded × 1”: everyone beside one busy process a core; ratios of means."
HEADER = (
    "suite",
    "cell",
    "dtype",
    "B × H × T",
    BASELINE,
    "seqcells",
    "× torch.nn",
    "best rival",
    "× rival",
    "÷ roofline",
)


class Case(NamedTuple):
    """Our row, and the rows that it is compared with."""

    ours: Row
    baseline: Row | None
    aa: Row | None
    rival: Row | None
    """The best row that is neither ours nor torch.nn's."""

    @property
    def to_rival(self) -> float | None:
        return self.rival.figure.value / self.ours.figure.value if self.rival and self.ours.figure.value else None

    @property
    def doubtful(self) -> bool:
        """Whether the ratio of torch.nn to itself was off in this case."""
        ratio = self.ours.origin.aa if self.ours.origin else self.aa and self.aa.ratio
        return ratio is not None and abs(ratio - 1) > AA_BAND and self.ours.unit == "s"


def write(paths: Iterable[Path], readme: Path, page: Path, plots_folder: Path | None) -> int:
    """Write the newest report of each device: all rows to the page, headlines between the README's markers.

    Returns an exit status.
    """
    reports = newest(map(Report.load, paths))
    pictures = []
    if plots_folder:
        from . import plots

        for report in reports.values():
            pictures += plots.draw(report, plots_folder)
    page.write_text(RESULTS_PAGE.format(markdown(reports, _links(pictures, page))))
    shown = [path for path in pictures if path.stem == "cpu-sequence-lstm-float32-ratio"]
    readme.write_text(between_markers(readme.read_text(), headlines(reports, _links(shown, readme))))
    print(f"{readme}: {', '.join(f'{r.device} of {r.date[:10]}' for r in reports.values()) or 'nothing measured yet'}")
    return 0


def _links(pictures: Iterable[Path], page: Path) -> list[str]:
    return [f"![{path.stem.replace('-', ' ')}]({os.path.relpath(path, page.parent)})" for path in pictures]


def headlines(reports: dict[str, Report], links: Iterable[str] = ()) -> str:
    """The README's table: a row for each of `HEADLINES` that was measured."""
    lines = ["| LSTM | device | B × H × T | × torch.nn | × best rival |", "|---|---|---|---:|---:|"]
    for each in HEADLINES:
        its = (
            [case for case in cases(reports[each.device]) if _tells(each, case.ours)] if each.device in reports else []
        )
        dtype = its[0].ours.dtype if its else ""
        its = [case for case in its if case.ours.dtype == dtype]
        if its:
            doubt = "~ " if any(case.doubtful for case in its) else ""
            # torch.nn's own loop over cells is a rival of cells only: beside a layer it would read as a win.
            if each.suite != "stepping":
                its = [case._replace(rival=None) if _is_torchs(case.rival) else case for case in its]
            rivals = ", ".join(dict.fromkeys(case.rival.provider for case in its if case.rival))
            sizes = ", ".join(f"{row.batch} × {row.hidden} × {row.steps}" for row in (case.ours for case in its))
            ratios = doubt + _spread(case.ours.ratio for case in its), _spread(case.to_rival for case in its)
            to_rival = f"{ratios[1]} {rivals}" if rivals else ratios[1]
            lines.append(f"| {each.words} | {each.device}, {dtype} | {sizes} | {ratios[0]} | {to_rival} |")
    machines = (
        f"{device}: {machine.title(report.machine)}, {report.date[:10]}, commit {report.commit}"
        for device, report in reports.items()
    )
    where = (
        "Ratios of medians: above 1 seqcells is faster, below 1 slower. "
        "With several sizes: the mean (least to greatest)."
    )
    where += " `~`: torch.nn differed from itself by more than 10 % in that case."
    where += f" {'; '.join(sorted(machines))}."
    return "\n\n".join([*links, "\n".join(lines), where])


def _tells(headline: Headline, row: Row) -> bool:
    it = headline.suite, headline.cell, headline.provider, headline.load
    return it == (row.suite, row.cell, row.provider, row.load)


def newest(reports: Iterable[Report]) -> dict[str, Report]:
    """The latest report of each device."""
    return {report.device: report for report in sorted(reports, key=lambda report: report.date)}


def between_markers(text: str, block: str) -> str:
    """Replace the text between the markers in ``text`` by ``block``.

    Raises:
        ValueError: ``text`` has no markers.
    """
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


def _is_torchs(row: Row | None) -> bool:
    return row is not None and row.provider.startswith(BASELINE)


def cases(report: Report) -> list[Case]:
    """Our measured rows in the suites that are shown."""
    found = []
    for (suite, *_), rows in groupby((row for row in report.rows if row.suite in SHOWN and row.figure), key):
        by_name = {row.provider: row for row in rows}
        others = [row for row in by_name.values() if not row.ours and row.provider not in (BASELINE, AA)]
        rival = min(others, key=lambda row: row.figure.value, default=None)
        for name in filter(by_name.__contains__, SHOWN[suite]):
            found.append(Case(by_name[name], by_name.get(BASELINE), by_name.get(AA), rival))
    return found


def _section(report: Report) -> str:
    version = report.versions.get("torch", "?")
    measured = dict.fromkeys(row.provider for row in report.rows if row.figure)
    found = cases(report)
    lines = [
        f"**{machine.title(report.machine)}**, {report.date[:10]}, commit {report.commit}, torch {version}; "
        f"{tables.aa_line(report)}. Ratios of medians: above 1 seqcells is faster (or smaller), below 1 slower."
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
    """A row for each suite and cell: for each dtype, geometric means over its sizes, with minimum and maximum."""
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
    """What identifies a row of the summary."""
    return label(case.ours.suite, case.ours.load), case.ours.cell, case.ours.provider


def _spread(ratios: Iterable[float | None]) -> str:
    """``1.24× (0.98 to 2.61)``: geometric mean, minimum and maximum."""
    there = [ratio for ratio in ratios if ratio]
    if not there:
        return "–"
    mean = formats.ratio(geometric_mean(there))
    return mean if len(there) == 1 else f"{mean} ({min(there):.2f} to {max(there):.2f})"


def _line(case: Case) -> list[str]:
    """A row of the table of all cases."""
    ours = case.ours
    took = (note.removeprefix("auto took ") for note in ours.notes if note.startswith("auto took "))
    how = next(took, ours.provider.removeprefix("seqcells "))

    def amount(row: Row | None) -> str:
        return formats.amount(row.figure.value, row.unit) if row else "–"

    return [
        label(ours.suite, ours.load),
        ours.cell,
        ours.dtype,
        f"{ours.batch} × {ours.hidden} × {ours.steps}",
        amount(case.baseline),
        f"{amount(ours)} ({how})",
        ("~ " if case.doubtful else "") + formats.ratio(ours.ratio),
        f"{case.rival.provider} {amount(case.rival)}" if case.rival else "–",
        formats.ratio(case.to_rival),
        formats.ratio(ours.distance),
    ]
