"""The pictures of the pages: ``python docs/pictures.py`` draws them, ``--check`` tells whether they are up to date.

Graphs of a step are derived from the cells that `write_a_cell.md` defines, arrows between rooms are read from the
sources, and plots are of the newest result files in benchmarks/results; the schedule's durations are made up. Each
picture has a hash of what it shows in its metadata, so that another version of matplotlib makes no difference.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from graphs import ROOT, cell_of_page, draw_graph, pyplot, rooms, save, step_graph

FOLDER = Path(__file__).parent / "pictures"


# The persistent kernel's schedule.

PARTS = {
    "wait": "#eceff1",
    "read, product": "#bbdefb",
    "cell": "#ffffff",
    "write, arrive": "#c8e6c9",
    "outputs": "#fff9c4",
}
"""Of a step, and their colours."""
TAKES = {"read, product": (5, 6, 5), "cell": (2, 2, 3), "write, arrive": (1, 1, 1), "outputs": (2, 2, 2)}
"""How long each part takes each of three programs, in units that mean nothing."""


def schedule(steps: int = 3, latency: int = 4) -> list[tuple[int, int, str, int, int]]:
    """Bars (program, step, part, begin, end) of programs that meet once a step: none reads before all have arrived."""
    count = len(TAKES["cell"])
    free, arrived, bars = [0] * count, 0, []
    for step in range(steps):
        arrivals = []
        for program in range(count):
            at = max(free[program], arrived + latency if step else 0)
            if at > free[program]:
                bars.append((program, step, "wait", free[program], at))
            for part, takes in TAKES.items():
                bars.append((program, step, part, at, at + takes[program]))
                at += takes[program]
                if part == "write, arrive":
                    arrivals.append(at)
            free[program] = at
        arrived = max(arrivals)
    return bars


def draw_schedule(bars: list[tuple[int, int, str, int, int]], path: Path, description: str) -> None:
    """A row for each program; a line where the last one arrives."""
    plt = pyplot()
    figure, axes = plt.subplots(figsize=(9, 2.4))
    for program, step, part, begin, end in bars:
        axes.barh(-program, end - begin, left=begin, height=0.62, color=PARTS[part], edgecolor="#607d8b", linewidth=0.8)
        if part == "read, product":
            axes.text((begin + end) / 2, -program, f"slot {step % 2}", ha="center", va="center", fontsize=8)
        if part == "write, arrive":
            axes.text((begin + end) / 2, -program, f"{(step + 1) % 2}", ha="center", va="center", fontsize=8)
    for step in sorted({bar[1] for bar in bars}):
        last = max(bar[4] for bar in bars if bar[1] == step and bar[2] == "write, arrive")
        axes.axvline(last, color="#c62828", linewidth=1, linestyle="--")
    axes.set_yticks([0, -1, -2], [f"program {k}" for k in range(3)], fontsize=9)
    axes.set_xticks([])
    axes.set_xlabel("time →", fontsize=9)
    handles = [plt.Rectangle((0, 0), 1, 1, facecolor=c, edgecolor="#607d8b") for c in PARTS.values()]
    axes.legend(
        handles, PARTS, ncols=len(PARTS), fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1), frameon=False
    )
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    save(figure, path, description)


# Results.


def newest(prefix: str, folder: Path = ROOT / "benchmarks" / "results") -> dict[str, Any]:
    """The newest result file of a kind, with its name."""
    path = max(folder.glob(f"{prefix}-*.json"), key=lambda each: json.loads(each.read_text())["date"])
    return {"file": path.name, **json.loads(path.read_text())}


def whole_calls() -> dict[str, Any]:
    """Of the newest CPU run, torch.nn's median over ours for each case of two suites and more."""
    found = newest("cpu")
    bars = {}
    suites = ("sequence", "training", "streaming", "packed", "stepping")
    for row in found["rows"]:
        wanted = row["provider"] == "seqcells auto" and row["suite"] in suites and not row["load"]
        if wanted and row["ratio"] and row["figure"]:
            sizes = f"{row['batch']} × {row['hidden']} × {row['steps']}"
            bars[f"{row['suite']}, {row['cell']}, {row['dtype']}, {sizes}"] = row["ratio"]
    words = f"{found['machine']['cpu']}, {found['machine']['threads']} threads, {found['machine']['capability']}"
    return {
        "title": f"torch.nn's time over ours ({words}; {found['file']})",
        "bars": bars,
        "one": "as fast as torch.nn",
    }


def library() -> dict[str, Any]:
    """Of the newest run of the cells, how many times as fast as a loop in torch each is."""
    found = newest("cells")
    machine = found["machine"]
    cases: dict[str, float] = {}
    for row in found["rows"]:
        if (row["batch"], row["mode"]) == (1, "training"):
            cases[row["cell"]] = row["theirs"]["median"] / row["ours"]["median"]
    cases = dict(sorted(cases.items(), key=lambda each: -each[1]))
    words = f"{machine['cpu']}, {machine['threads']} threads, {machine['capability']}"
    return {
        "title": f"training, 1 × 128 × 100: a loop's time over ours ({words}; {found['file']})",
        "bars": cases,
        "one": "as a loop",
    }


# Drawing.


def draw_bars(found: dict[str, Any], path: Path, description: str) -> None:
    """A dot for each case, on a scale of ratios."""
    plt = pyplot()
    from matplotlib.ticker import NullFormatter, ScalarFormatter

    names = list(found["bars"])[::-1]
    values = [found["bars"][name] for name in names]
    figure, axes = plt.subplots(figsize=(9, 1.2 + 0.21 * len(names)))
    axes.hlines(range(len(names)), [min(1, v) for v in values], [max(1, v) for v in values], color="#b0bec5")
    axes.plot(values, range(len(names)), "o", color="#1565c0", markersize=4)
    axes.axvline(1, color="#37474f", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_xticks([t for t in (0.5, 1, 2, 5, 10, 20, 50, 100) if min(values) / 1.3 < t < max(values) * 1.3 or t == 1])
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.set_ylim(-0.8, len(names) - 0.2)
    axes.set_title(found["title"], fontsize=9, loc="right")
    axes.grid(axis="x", color="#eceff1")
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    figure.tight_layout(pad=0.4)
    save(figure, path, description)


def pictures() -> dict[str, tuple[Any, Callable[[Any, Path, str], None]]]:
    """By file name what a picture shows, and what draws it."""
    found: dict[str, tuple[Any, Callable[[Any, Path, str], None]]] = {}
    nested = cell_of_page("NestedStep")
    for which in ("forward", "backward"):
        found[f"nested-{which}.svg"] = step_graph(nested, which), draw_graph
    found["rooms.svg"] = rooms(), lambda graph, path, words: draw_graph(graph, path, words, 1.6)
    found["schedule.svg"] = schedule(), draw_schedule
    found["calls.svg"] = whole_calls(), draw_bars
    found["cells.svg"] = library(), draw_bars
    return found


def digest(shown: Any) -> str:
    """A hash of what a picture shows."""
    plain = json.dumps(shown, sort_keys=True, ensure_ascii=False)
    return "data " + hashlib.sha256(plain.encode()).hexdigest()[:16]


def stale() -> list[str]:
    """The pictures that show something else than they should, or that there are not."""
    paths = {FOLDER / name: digest(shown) for name, (shown, _) in pictures().items()}
    return [path.name for path, wanted in paths.items() if not path.exists() or wanted not in path.read_text()]


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw all pictures; with ``--check`` 1 where one is stale."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--check", action="store_true", help="draw nothing; name those that are stale")
    if parser.parse_args(arguments).check:
        found = stale()
        print(*(f"{name} is stale: python docs/pictures.py draws it" for name in found), sep="\n")
        return int(bool(found))
    for name, (shown, draw) in pictures().items():
        draw(shown, FOLDER / name, digest(shown))
        print(FOLDER / name)
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    raise SystemExit(main())
