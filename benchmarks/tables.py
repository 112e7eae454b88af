"""A report as tables in the terminal: rich where it is installed, plain text otherwise."""

from collections.abc import Container, Iterable, Sequence
from itertools import groupby

from . import machine, units
from .run import key
from .schema import Report, Row
from .suites import SUITES

HEADER = ("provider", "median", "p20–p80", "× torch.nn", "× best rival", "floor", "÷ floor", "error", "remarks")
RIGHT = {1, 2, 3, 4, 5, 6, 7}


def print_report(report: Report) -> None:
    """All of it."""
    print_heading(report)
    for suite, rows in groupby(report.rows, lambda row: row.suite):
        print_suite(suite, list(rows))
    print_ending(report)


def print_heading(report: Report) -> None:
    versions = ", ".join(f"{package} {version}" for package, version in report.versions.items())
    say(f"{machine.title(report.machine)} · {versions} · commit {report.commit} · {report.date}")


def print_suite(suite: str, rows: list[Row]) -> None:
    """A table for each case of a suite; providers that are simply not here are named below it, once."""
    for _, each in groupby(rows, key):
        case = list(each)
        first = case[0]
        title = f"{suite} · {first.cell} · B={first.batch} H={first.hidden} T={first.steps} · {first.dtype}"
        shown = sorted(
            (row for row in case if row.status not in ("unavailable", "refused")),
            key=lambda row: row.figure.median if row.figure else float("inf"),
        )
        header = (*HEADER, "CUDA graph") if any(row.graph for row in case) else HEADER
        table(title, header, [_cells(row, len(header) > len(HEADER)) for row in shown])
    say(f"{suite}: {SUITES[suite].about}.")
    _say_why([row for row in rows if row.status == "refused"], "  not ")
    say("")


def print_ending(report: Report) -> None:
    """What the rows cannot say."""
    _say_why([row for row in report.rows if row.status == "unavailable"], "not here: ")
    for note in (*report.notes, report.floors.get("missing")):
        if note:
            say(f"note: {note}")
    say(null_line(report))
    if report.machine.get("others") is not None:
        say(f"other programs took {report.machine['others']:.0%} of the processors meanwhile (median over the cases)")
    say(f"{report.seconds:.0f} s")


def _say_why(rows: list[Row], before: str) -> None:
    """A line for each reason, with all whom it kept out."""
    kept_out: dict[str | None, dict[str, None]] = {}
    for row in rows:
        kept_out.setdefault(row.reason, {})[row.provider] = None
    for reason, providers in kept_out.items():
        say(f"{before}{', '.join(providers)}: {reason}")


def null_line(report: Report) -> str:
    """What timing torch.nn against itself gave."""
    null = report.null
    if not null.get("cases"):
        return "no null row: nothing here can be trusted"
    verdict = "to be trusted" if null["within"] else "NOT to be trusted: the machine is too busy"
    return (
        f"null (torch.nn against itself): {null['ratio']:.3f}, the worst of {null['cases']} cases {null['worst']:.3f}, "
        f"{null['outside']} beyond 10 %: {verdict}"
    )


def _cells(row: Row, graphs: bool) -> list[str]:
    if not row.figure:
        return [row.provider, "–", "", "", "", "", "", _error(row), f"{row.status}: {row.reason}"] + [""] * graphs
    cells = [
        row.provider,
        units.amount(row.figure.median, row.unit),
        f"{units.amount(row.figure.p20, row.unit)} – {units.amount(row.figure.p80, row.unit)}",
        units.ratio(row.ratio),
        units.ratio(row.ratio_to_rival),
        units.seconds(row.floor.seconds) if row.floor else "",
        units.ratio(row.distance),
        _error(row),
        "; ".join(row.notes),
    ]
    return cells + [units.amount(row.graph.median, row.unit) if row.graph else "–"] * graphs


def _error(row: Row) -> str:
    return "" if row.error is None else f"{row.error:.0e}"


try:
    from rich.console import Console
    from rich.table import Table

    _console: "Console | None" = Console(highlight=False)
    if not _console.is_terminal:
        _console = Console(highlight=False, width=200)
except ImportError:
    _console = None


def say(text: str) -> None:
    """A line, as it is."""
    print(text, flush=True) if _console is None else _console.print(text, markup=False, soft_wrap=True)


def table(title: str, header: Sequence[str], rows: Iterable[Sequence[str]], right: Container[int] = RIGHT) -> None:
    """Print one; ``right``: the columns to align there."""
    if _console is None:
        print(plain(title, header, rows, right), flush=True)
        return
    grid = Table(title=title, title_justify="left", title_style="bold", header_style="dim", box=None, padding=(0, 1))
    for index, name in enumerate(header):
        grid.add_column(
            name, justify="right" if index in right else "left", no_wrap=index != len(header) - 1 and name != "remarks"
        )
    for row in rows:
        grid.add_row(*row, style="cyan" if row[0].startswith("seqcells") else "dim" if row[0] == "null" else None)
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
