"""Graphs as pictures: the steps of the tutorial's cells, stage by stage, and the imports between rooms."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
ROOT = HERE.parent

FILL = {"leaf": "#eceff1", "gather": "#bbdefb", "value": "#ffffff", "result": "#c8e6c9", "room": "#eceff1"}


class Box(NamedTuple):
    """A node: its middle (column, row), in characters and lines, its words, its kind."""

    column: float
    row: int
    label: str
    kind: str


class Picture(NamedTuple):
    """What a graph's picture shows. ``regions`` are (first row, last row, title)."""

    boxes: dict[str, Box]
    arrows: list[tuple[str, str]]
    regions: list[tuple[int, int, str]]


# Graphs of a step.


def cell_of_page(name: str) -> Any:
    """A cell that the tutorial defines."""
    for block in re.findall(r"^```python\n(.*?)^```", (HERE / "write_a_cell.md").read_text(), re.M | re.S):
        if f"class {name}(" in block:
            names: dict[str, Any] = {"__name__": "write_a_cell"}
            exec(block.partition("\n\n\nclass Nested(")[0], names)
            return names[name]
    raise LookupError(f"no block of write_a_cell.md defines {name}")


def step_graph(cell: Any, which: str) -> Picture:
    """One pass of a cell: a row for each depth of the graph, a region for each stage. Values that the author of `step`
    has named are boxes; what lies between them is written out in the boxes' words, as are most of the leaves."""
    from seqcells.derive.derivation import derive
    from seqcells.derive.expressions import Product, reachable
    from seqcells.derive.transformed_cells import for_engines

    program = getattr(derive(for_engines(cell)), which)
    blocks = {"hh": cell.recurrent_gates, **cell.products}
    values = reachable(program.roots)
    stage_of = {v: k for k, stage in enumerate(program.stages) for v in (*stage.gathers, *stage.block)}
    results = {output.value for output in (*program.outputs.values(), *program.carried.values())}
    named = {v: name for v, name in program.names.items() if v.inner and not v.gathers}
    for name, output in program.carried.items():
        if output.value.inner and not output.value.gathers and name.startswith("d."):
            named[output.value] = name.replace("d.carried.", "next d_")
    left_out = {v for v in values if v.op == "leaf" and v.args[0].startswith("bias_")}
    gradients = {f"d_bias_{p}_{row}": f"d_{p}.{row}" for p, rows in cell.products.items() for row in rows}
    gradients |= {f"d_x_{gate}": f"d_x.{gate}" for gate in cell.gates}

    def name_of(v: Any) -> str:
        """What a box or a leaf is called."""
        if v.op != "leaf":
            return gradients.get(named[v], named[v])
        name = "grad_output" if v.args[0] == "d.output" else v.args[0]
        for prefix, words in (("carried.", "previous "), ("before.", "previous "), ("after.", ""), ("saved.", "")):
            name = name.removeprefix(prefix) if not words and name.startswith(prefix) else name.replace(prefix, words)
        return name.replace("d.", "d_")

    def product(v: Any) -> str:
        short = v.op.weight.removeprefix("weight_")
        if v.op.transposed:
            return f"weight_{short}ᵀ d_{'x' if short == 'hh' else short}"
        operand = words(v.args[0])
        return f"weight_{short} · ({operand})" if " · " in operand else f"weight_{short} · {operand}"

    def words(v: Any, top: bool = False) -> str:
        """An expression down to the next boxes."""
        if v.op == "constant":
            return f"{v.args[0]:g}"
        if v.op == "leaf" or (v in named and not top):
            return name_of(v)
        if isinstance(v.op, Product):
            short = v.op.weight.removeprefix("weight_")
            return f"[{product(v)}]" if v.op.transposed else f"{short}.{blocks[short][v.op.blocks[0]]}"
        parts = [a for a in v.args if a not in left_out]
        if len(parts) == 1 and v.op == "+":
            return words(parts[0], top)
        inner = [words(a) for a in parts]
        if v.op == "*":
            return f"{inner[0]}²" if parts[0] is parts[1] else " · ".join(inner)
        if v.op in ("+", "-", "/"):
            text = f" {v.op.replace('-', '−')} ".join(inner)
            return text if top else f"({text})"
        if v.op == "neg":
            return f"−{inner[0]}"
        text = ", ".join(inner)
        text = text[1:-1] if text.startswith("(") and text.endswith(")") and "(" not in text[1:] else text
        return f"{getattr(v.op, 'name', v.op).replace('sigmoid', 'σ')}({text})"

    def is_box(v: Any) -> bool:
        state = v.op == "leaf" and v.args[0].startswith(("carried.", "d.carried."))
        return state or v in named or isinstance(v.op, Product)

    def box(v: Any) -> str:
        return product(v) if isinstance(v.op, Product) else name_of(v)

    def sources(v: Any) -> Iterable[str]:
        """The boxes that a value is made of."""
        for a in v.inner:
            if is_box(a):
                yield box(a)
            else:
                yield from sources(a)

    nodes: dict[str, tuple[str, str, int]] = {}
    arrows: list[tuple[str, str]] = []
    for v in filter(is_box, values):
        name = box(v)
        if v.op == "leaf":
            nodes[name] = name, "leaf", 0
        elif isinstance(v.op, Product):
            nodes[name] = name, "gather", stage_of[v]
        else:
            nodes[name] = f"{name} =\n{words(v, top=True)}", "result" if v in results else "value", stage_of[v]
        arrows += [(source, name) for source in dict.fromkeys(sources(v)) if (source, name) not in arrows]
    return _placed(nodes, arrows, len(program.stages))


def _width(label: str) -> float:
    return max(map(len, label.split("\n"))) + 2.0


def _placed(nodes: dict[str, tuple[str, str, int]], arrows: list[tuple[str, str]], stages: int) -> Picture:
    """Rows by the longest path, none of a stage above the last of the stage before; within a row by the neighbours."""
    before, after = defaultdict(list), defaultdict(list)
    for a, b in arrows:
        before[b].append(a)
        after[a].append(b)
    row: dict[str, int] = {}
    regions, first = [], 1
    for stage in range(stages):
        own = [name for name, (_, kind, k) in nodes.items() if k == stage and kind != "leaf"]
        if not own:
            continue
        for name in own:  # in the order they were made
            row[name] = max([first, *(row[a] + 1 for a in before[name] if a in row)])
        last = max(row[name] for name in own)
        regions.append((first, last, f"stage {stage}" if stage else "before stage 1"))
        first = last + 1
    for name, (_, kind, _) in nodes.items():
        if kind == "leaf":
            row[name] = min([row[b] for b in after[name] if b in row], default=1) - 1
    rows = defaultdict(list)
    for name in nodes:
        rows[row[name]].append(name)
    x = {name: 12.0 * k for names in rows.values() for k, name in enumerate(names)}
    for sweep in range(24):
        for r in sorted(rows, reverse=bool(sweep % 2)):
            near = {n: [x[m] for m in (*before[n], *after[n])] for n in rows[r]}
            wanted = {n: sum(each) / len(each) if each else x[n] for n, each in near.items()}
            rows[r].sort(key=wanted.__getitem__)
            x |= _side_by_side(rows[r], wanted, {n: _width(nodes[n][0]) for n in rows[r]})
    boxes = {name: Box(x[name], row[name], label, kind) for name, (label, kind, _) in nodes.items()}
    return Picture(boxes, arrows, regions)


def _side_by_side(names: list[str], wanted: dict[str, float], widths: dict[str, float]) -> dict[str, float]:
    """Near where they are wanted, in this order, without overlap: the mean of pushing to the right and to the left."""
    right: dict[str, float] = {}
    at = -1e9
    for n in names:
        right[n] = max(wanted[n], at + widths[n] / 2)
        at = right[n] + widths[n] / 2 + 2
    left: dict[str, float] = {}
    at = 1e9
    for n in reversed(names):
        left[n] = min(wanted[n], at - widths[n] / 2)
        at = left[n] - widths[n] / 2 - 2
    return {n: round((left[n] + right[n]) / 2, 1) for n in names}


# Rooms.


def rooms() -> Picture:
    """Which folder of the package imports which, as the sources say; arrows that follow from others are left out."""
    files = {p: p.relative_to(ROOT) for top in ("seqcells", "kernels") for p in sorted((ROOT / top).rglob("*.py"))}
    files = {p: at for p, at in files.items() if at.parts[:2] != ("seqcells", "kernels")}
    inside = {"seqcells": {at.parts[1].removesuffix(".py") for at in files.values() if at.parts[0] == "seqcells"}}

    def room(parts: Sequence[str]) -> str | None:
        if parts[:1] == ("kernels",) or parts[:2] == ("seqcells", "kernels"):
            rest = parts[1:] if parts[0] == "kernels" else parts[2:]
            return f"kernels/{rest[0]}" if rest else None
        if len(parts) < 2 or parts[1] not in inside["seqcells"]:
            return None
        return parts[1]

    shown: dict[str, set[str]] = defaultdict(set)
    commands = {"check", "cell_argument", "compile", "info", "selftest", "tune"}
    for path, at in files.items():
        parts = at.with_suffix("").parts
        package = ("seqcells", *parts) if parts[0] == "kernels" else parts
        own = room(parts)
        if own is None or own in ("__init__", "version", "__main__"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.ImportFrom) or not node.level:
                continue
            base = package[: len(package) - node.level]
            module = (*base, *(node.module or "").split(".")) if node.module else base
            for alias in node.names:
                found = room((*module, alias.name)) or room(module)
                if found and found not in (own, "__init__", "version"):
                    shown[own].add(found)
    merged: dict[str, set[str]] = defaultdict(set)
    names = {
        name: "commands" if name in commands else name
        for name in {*shown, *(b for each in shown.values() for b in each)}
    }
    for a, each in shown.items():
        merged[names[a]] |= {names[b] for b in each} - {names[a]}
    every = {*merged, *(b for each in merged.values() for b in each)}

    def reach(a: str, seen: set[str]) -> set[str]:
        for b in merged[a] - seen:
            seen.add(b)
            reach(b, seen)
        return seen

    arrows = []
    for a in sorted(every):
        for b in sorted(merged[a]):
            if not any(b in reach(c, {c}) for c in merged[a] - {b}):
                arrows.append((a, b))
    height: dict[str, int] = {}

    def depth(a: str) -> int:
        if a not in height:
            height[a] = 1 + max((depth(b) for b in merged[a]), default=-1)
        return height[a]

    for a in every:
        depth(a)
    top = max(height.values())
    nodes = {a: (a, "room", top - height[a]) for a in sorted(every)}
    layers = defaultdict(list)
    for a, (_, _, k) in nodes.items():
        layers[k].append(a)
    boxes = {
        a: Box(26 * (i - (len(each) - 1) / 2), k, a, "room") for k, each in layers.items() for i, a in enumerate(each)
    }
    return Picture(boxes, arrows, [])


# Drawing.


def draw_graph(picture: Picture, path: Path, description: str, scale: float = 1.0) -> None:
    """Boxes and arrows, from top to bottom."""
    plt = pyplot()
    left = min(box.column - _width(box.label) / 2 for box in picture.boxes.values()) - 2
    right = max(box.column + _width(box.label) / 2 for box in picture.boxes.values()) + 2
    top = min(box.row for box in picture.boxes.values()) - 0.5
    bottom = max(box.row for box in picture.boxes.values()) + 0.5
    figure = plt.figure(figsize=((right - left) * 0.072 * scale, (bottom - top) * 0.62))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(left - (10 if picture.regions else 0), right)
    axes.set_ylim(bottom, top)
    axes.axis("off")
    for k, (first, last, title) in enumerate(picture.regions):
        axes.axhspan(first - 0.5, last + 0.5, color="#eceff1" if k % 2 else "#f7f9fa", zorder=0)
        axes.text(
            left - 9, (first + last) / 2, title, ha="center", va="center", fontsize=8, color="#455a64", rotation=90
        )
    drawn = {}
    for name, box in picture.boxes.items():
        style = {"boxstyle": "round,pad=0.3", "facecolor": FILL[box.kind], "edgecolor": "#607d8b", "linewidth": 0.8}
        words = {"ha": "center", "va": "center", "fontsize": 8.5 * scale**0.5, "bbox": style, "zorder": 3}
        drawn[name] = axes.text(box.column, box.row, box.label, **words)
    figure.canvas.draw()
    to_data = axes.transData.inverted().transform
    for a, b in picture.arrows:
        one, other = (drawn[n].get_bbox_patch().get_window_extent() for n in (a, b))
        start, end = to_data(((one.x0 + one.x1) / 2, one.y0)), to_data(((other.x0 + other.x1) / 2, other.y1))
        style = {"arrowstyle": "-|>", "color": "#90a4ae", "linewidth": 0.8, "shrinkA": 0, "shrinkB": 0}
        axes.annotate("", end, start, arrowprops=style, zorder=2)
    save(figure, path, description)


def pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams |= {"svg.hashsalt": "seqcells", "font.family": "DejaVu Sans"}
    from matplotlib import pyplot

    return pyplot


def save(figure: Any, path: Path, description: str) -> None:
    path.parent.mkdir(exist_ok=True)
    figure.savefig(
        path,
        bbox_inches="tight",
        pad_inches=0.05,
        metadata={"Date": None, "Creator": "docs/pictures.py", "Description": description},
    )
    path.write_text("\n".join(line.rstrip() for line in path.read_text().splitlines()) + "\n")
    pyplot().close(figure)
