"""Draws a report: time per step against H with the roofline, and bars of the ratios to torch.nn."""

from collections.abc import Callable
from pathlib import Path

from .providers import AA, BASELINE
from .schema import Report, Row
from .suites import SUITES, label

COLOURS = ("#7f7f7f", "#ff7f0e", "#2ca02c", "#9467bd", "#8c564b", "#e377c2", "#bcbd22", "#17becf", "#d62728")


def draw(report: Report, folder: Path) -> list[Path]:
    """Write the PNGs, named by their content. Without matplotlib: print a line and write none."""
    try:
        import matplotlib
    except ImportError:
        print("no plots: matplotlib is not installed")
        return []
    matplotlib.use("Agg")
    folder.mkdir(parents=True, exist_ok=True)
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in report.rows:
        if row.figure and row.unit == "s" and row.provider != AA:
            groups.setdefault((label(row.suite, row.load), row.cell, row.dtype), []).append(row)
    written = []
    for (suite, cell, dtype), rows in groups.items():
        name = f"{report.device}-{suite.replace(' × ', '-')}-{cell}-{dtype}"
        title = f"{suite}, {cell}, {dtype} · {report.machine.get('gpu', report.machine['cpu'])} · {report.date[:10]}"
        batches = {row.batch: {r.hidden for r in rows if r.batch == row.batch} for row in rows}
        if any(len(hiddens) > 1 for hiddens in batches.values()):
            written.append(_drawn(folder / f"{name}-hidden.png", title, rows, _against_hidden))
        written.append(_drawn(folder / f"{name}-ratio.png", title, rows, _ratios))
    return written


def _drawn(path: Path, title: str, rows: list[Row], picture: Callable) -> Path:
    from matplotlib import pyplot

    figure = picture(rows)
    figure.suptitle(title, fontsize=10)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
    return path


def _legend(axis: object) -> None:
    axis.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1), frameon=False)


def _styles(rows: list[Row]) -> dict[str, str]:
    """A colour for each provider: blue for ours, black for torch.nn."""
    names = list(dict.fromkeys(row.provider for row in rows))
    ours = [name for name in names if name.startswith("seqcells")]
    others = [name for name in names if name not in ours and name != BASELINE]
    blues = {name: (0.1, 0.25 + 0.5 * i / max(1, len(ours) - 1), 0.9) for i, name in enumerate(ours)}
    return {BASELINE: "black", **blues, **{name: COLOURS[i % len(COLOURS)] for i, name in enumerate(others)}}


def _against_hidden(rows: list[Row]) -> object:
    """Draw time per step against H, with a panel for each batch size that has several H."""
    from matplotlib import pyplot

    panels = [b for b in sorted({r.batch for r in rows}) if len({r.hidden for r in rows if r.batch == b}) > 1]
    figure, axes = pyplot.subplots(1, len(panels), figsize=(4.6 * len(panels) + 2, 4), squeeze=False, sharey=True)
    colours = _styles(rows)
    for axis, batch in zip(axes[0], panels, strict=True):
        rooflines = {}
        for name, colour in colours.items():
            points = sorted((r for r in rows if r.batch == batch and r.provider == name), key=lambda r: r.hidden)
            if not points:
                continue
            steps = [1 if SUITES[r.suite].streaming else r.steps for r in points]
            scaled = [
                [v / n * 1e6 for v in (r.figure.value, r.figure.p20, r.figure.p80)]
                for r, n in zip(points, steps, strict=True)
            ]
            value, low, high = zip(*scaled, strict=True)
            hidden = [r.hidden for r in points]
            axis.plot(hidden, value, marker="o", markersize=3, color=colour, label=name)
            axis.fill_between(hidden, low, high, color=colour, alpha=0.15, linewidth=0)
            rooflines |= {
                r.hidden: r.roofline.seconds / n * 1e6 for r, n in zip(points, steps, strict=True) if r.roofline
            }
        if rooflines:
            axis.plot(*zip(*sorted(rooflines.items()), strict=True), color="red", linestyle="--", label="roofline")
        axis.set(xscale="log", yscale="log", xlabel="H", title=f"B = {batch}")
        hiddens = sorted({r.hidden for r in rows if r.batch == batch})
        axis.set_xticks(hiddens, [str(h) for h in hiddens])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("µs per step")
    _legend(axes[0][-1])
    return figure


def _ratios(rows: list[Row]) -> object:
    """Draw how many times as fast as torch.nn each provider is, with a group of bars for each shape."""
    from matplotlib import pyplot

    rows = [row for row in rows if row.ratio]
    shapes = list(dict.fromkeys((row.batch, row.hidden, row.steps) for row in rows))
    colours = {
        name: c for name, c in _styles(rows).items() if name != BASELINE and any(r.provider == name for r in rows)
    }
    figure, axis = pyplot.subplots(figsize=(max(6, 2.6 + 0.24 * len(shapes) * (len(colours) + 1)), 4))
    width = 0.8 / max(1, len(colours))
    for place, (name, colour) in enumerate(colours.items()):
        found = {(r.batch, r.hidden, r.steps): r.ratio for r in rows if r.provider == name}
        at = [i + place * width for i, shape in enumerate(shapes) if shape in found]
        axis.bar(at, [found[s] for s in shapes if s in found], width, color=colour, label=name)
    axis.axhline(1, color="black", linewidth=1)
    axis.set(yscale="log", ylabel="× torch.nn (above 1: faster)")
    axis.set_xticks([i + 0.4 for i in range(len(shapes))], [f"B{b} H{h}\nT{t}" for b, h, t in shapes], fontsize=8)
    axis.grid(axis="y", alpha=0.3)
    low, high = axis.get_ylim()
    ticks = [base * 10**power for power in range(-3, 4) for base in (1, 2, 5) if low <= base * 10**power <= high]
    axis.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.minorticks_off()
    _legend(axis)
    return figure
