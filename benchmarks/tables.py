"""Prints a report as tables in the terminal, with rich where it is installed, otherwise in plain text."""

from collections.abc import Callable, Container, Iterable, Sequence
from itertools import groupby

from . import formats, machine
from .run import key
from .schema import Report, Row
from .suites import SUITES, label

RIGHT = range(1, 8)
Column = tuple[str, Callable[[Row], str]]
"""A column's heading, and its text for a row."""


def print_report(report: Report) -> None:
    """Print the whole report."""
    print_heading(report)
    for suite, rows in groupby(report.rows, lambda row: row.suite):
        print_suite(suite, list(rows))
    print_ending(report)


def print_heading(report: Report) -> None:
    versions = ", ".join(f"{package} {version}" for package, version in report.versions.items())
    say(f"{machine.title(report.machine)} · {versions} · commit {report.commit} · {report.date}")
    if machine.details(report.machine):
        say(machine.details(report.machine))


def print_suite(suite: str, rows: list[Row]) -> None:
    """Print a table for each case of a suite; why providers refused is printed once below."""
    for _, each in groupby(rows, key):
        case = list(each)
        first = case[0]
        sizes = f"B={first.batch} H={first.hidden} T={first.steps}"
        title = f"{label(suite, first.load)} · {first.cell} · {sizes} · {first.dtype}"
        shown = sorted(
            (row for row in case if row.status not in ("unavailable", "refused")),
            key=lambda row: row.figure.value if row.figure else float("inf"),
        )
        columns = _columns(case)
        table(title, [name for name, _ in columns], [[cell(row) for _, cell in columns] for row in shown])
    say(f"{suite}: {SUITES[suite].about}.")
    _say_why([row for row in rows if row.status == "refused"], "  not ")
    say("")


def print_ending(report: Report) -> None:
    """Print what the rows do not show: notes, the A/A rows, and the time."""
    _say_why([row for row in report.rows if row.status == "unavailable"], "not here: ")
    for note in (*notes(report), report.rooflines.get("missing")):
        if note:
            say(f"note: {note}")
    say(aa_line(report))
    if report.machine.get("others") is not None:
        say(f"other programs took {report.machine['others']:.0%} of the processors meanwhile (median over the cases)")
    say(f"{report.seconds:.0f} s")


def notes(report: Report, most: int | None = None) -> list[str]:
    """The report's notes, and the cases that it left out, with reasons: all cases, or at most ``most`` for each
    reason."""
    lines = list(report.notes)
    for reason, group in groupby(report.left_out, lambda left: left.reason):
        left = list(group)
        takes = [f" (about {formats.seconds(each.seconds)})" if each.seconds is not None else "" for each in left]
        shown = [f"{each.case}{time}" for each, time in zip(left, takes, strict=True)][:most]
        lines.append(f"{reason}; left out {len(left)}: {', '.join(shown)}{', …' * (len(shown) < len(left))}")
    return lines


def _say_why(rows: list[Row], before: str) -> None:
    """Print a line for each reason, with all providers that it excluded."""
    kept_out: dict[str | None, dict[str, None]] = {}
    for row in rows:
        kept_out.setdefault(row.reason, {})[row.provider] = None
    for reason, providers in kept_out.items():
        say(f"{before}{', '.join(providers)}: {reason}")


def aa_line(report: Report) -> str:
    """The result of timing torch.nn against itself."""
    aa = report.aa
    if not aa.get("cases"):
        return "no A/A row: nothing here can be trusted"
    verdict = "to be trusted" if aa["within"] else "NOT to be trusted: the machine is too busy"
    return (
        f"A/A (torch.nn against itself): {aa['ratio']:.3f}, the worst of {aa['cases']} cases {aa['worst']:.3f}, "
        f"{aa['outside']} beyond 10 %: {verdict}"
    )


def _columns(case: list[Row]) -> list[Column]:
    """The columns of a case's table."""
    loaded = bool(SUITES[case[0].suite].loads)
    timed: list[Column] = [
        ("mean" if loaded else "median", lambda row: formats.amount(row.figure.value, row.unit)),
        (
            "p20–p80",
            lambda row: " – ".join(formats.amount(p, row.unit) for p in (row.figure.p20, row.figure.p80)),
        ),
        ("× torch.nn", lambda row: formats.ratio(row.ratio)),
        ("× best rival", lambda row: formats.ratio(row.ratio_to_rival)),
    ]
    if loaded:
        timed += [
            ("× one thread", lambda row: formats.ratio(row.to_one_thread)),
            ("of unloaded", lambda row: "" if row.kept is None else f"{row.kept:.0%}"),
        ]
    else:
        timed += [
            ("roofline", lambda row: formats.seconds(row.roofline.seconds) if row.roofline else ""),
            ("÷ roofline", lambda row: formats.ratio(row.distance)),
        ]
    columns = [("provider", lambda row: row.provider), *((name, _if_timed(cell)) for name, cell in timed)]
    columns += [
        ("error", lambda row: "" if row.error is None else f"{row.error:.0e}"),
        ("remarks", lambda row: "; ".join(row.notes) if row.figure else f"{row.status}: {row.reason}"),
    ]
    if any(row.graph for row in case):
        columns.append(
            ("CUDA graph", _if_timed(lambda row: formats.amount(row.graph.median, "s") if row.graph else "–"))
        )
    return columns


def _if_timed(cell: Callable[[Row], str]) -> Callable[[Row], str]:
    """A function that gives the cell's text where the row has a figure, otherwise an empty string."""
    return lambda row: cell(row) if row.figure else ""


try:
    from rich.console import Console
    from rich.table import Table

    _console: "Console | None" = Console(highlight=False)
    if not _console.is_terminal:
        _console = Console(highlight=False, width=200)
except ImportError:
    _console = None


def say(text: str) -> None:
    """Print a line without markup."""
    print(text, flush=True) if _console is None else _console.print(text, markup=False, soft_wrap=True)


def table(title: str, header: Sequence[str], rows: Iterable[Sequence[str]], right: Container[int] = RIGHT) -> None:
    """Print a table; ``right``: the columns to align on the right."""
    if _console is None:
        print(plain(title, header, rows, right), flush=True)
        return
    grid = Table(title=title, title_justify="left", title_style="bold", header_style="dim", box=None, padding=(0, 1))
    for index, name in enumerate(header):
        grid.add_column(
            name, justify="right" if index in right else "left", no_wrap=index != len(header) - 1 and name != "remarks"
        )
    for row in rows:
        grid.add_row(*row, style="cyan" if row[0].startswith("seqcells") else "dim" if row[0] == "A/A" else None)
    _console.print(grid)


def plain(title: str, header: Sequence[str], rows: Iterable[Sequence[str]], right: Container[int] = RIGHT) -> str:
    """The table in plain text."""
    lines = [list(header), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    text = [title]
    for line in lines:
        cells = (c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True)))
        text.append("  " + "  ".join(cells).rstrip())
    return "\n".join(text)
