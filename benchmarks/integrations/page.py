"""Writes ``docs/integrations.md``: how models of other packages run on our layers, and how fast."""

from pathlib import Path
from statistics import mean

from .. import formats, machine
from .report import OURS, THEIRS, Curve, Report, Row

PAGE = Path(__file__).parents[2] / "docs" / "integrations.md"
BEGIN = """# Models of other packages

`seqcells.swap(model)` is all that a model of these packages needs; its report names what was replaced, and what was
left and why. Some packages take several calls of torch.nn's layers for what our layers do in one call. `swap` then
also gives the package's module an adapter's methods (`seqcells/io/adapters/owners.py`). `seqcells.unswap(model)` takes
them away again.

{packages}

`make integrations` installs these packages, pinned, in an environment of its own (`tests/integrations`), tests that
losses are the same with the engine running, and measures. `python -m benchmarks.integrations page` writes this page.
"""
HOLDERS = {
    "TorchRL": (
        "`LSTMModule`, `GRUModule`",
        "a batch with episode ends is one call, `is_init` as `reset=`, where TorchRL pads each trajectory to a row "
        "(`io/adapters/torchrl.py`). Swap before a loss module takes the policy's parameters",
    ),
    "sb3-contrib": (
        "`RecurrentActorCriticPolicy`",
        "`swap(model.policy)`: an update is one call, episode starts as `reset=`, where sb3-contrib loops over steps "
        "(`io/adapters/sb3_contrib.py`)",
    ),
    "pfrl": (
        "`RecurrentSequential`",
        "finds our layers, which it looks for by torch.nn's types (`io/adapters/pfrl.py`)",
    ),
    "pytorch-forecasting": ("`LSTM`, `GRU`, with lengths of zero", "their methods go on, and go through our layers"),
    "speechbrain": (
        "`LSTM`, `GRU`, `RNN`, decoders",
        "our layers and cells. Its own `LiGRU`, `SLiGRU` and `QuasiRNN` are no layers of torch.nn and stay",
    ),
    "fastai": ("`AWD_LSTM`", "our layers; its weight drop works on them"),
    "gluonts": ("DeepAR, TFT", "our layers"),
    "rsl_rl": (
        "`RNN`, the memory of its policies",
        "our layers. Its exports (`as_jit`, `as_onnx`) go by torch.nn's types: `seqcells.unswap` before them",
    ),
}
"""The modules that hold layers of torch.nn, and what `swap` does with them."""
TIMES = """
## A step of training

{machine}, {date}, commit {commit}, torch {torch}. Forward, backward and an update, ours by `backend="auto"`; the two by
turns, medians. “Differs” is the greatest relative difference of the first three losses.

| package | model | torch.nn | seqcells | × | backend | differs |
|---|---|---|---|---|---|---|"""
LEARNING = """
## RecurrentPPO learns

CartPole without its velocities, in eight environments, {frames} frames, seeds: {seeds}. By torch.nn {theirs:.0f} frames
a second, by seqcells {ours:.0f}, {ratio:.1f} times as many. A seed's first rollout and losses are the same by
both (`tests/integrations/test_sb3_contrib.py`); then a rounding changes an action, and it is another run. The mean
return of the last 100 episodes, over the seeds, with the least and the greatest:

| frames | torch.nn | seqcells |
|---|---|---|"""


def write(results: Path | None) -> None:
    """Write the page; without results, the page has no times."""
    PAGE.write_text(page(None if results is None else Report.load(results)))
    print(f"written to {PAGE}")


def page(report: Report | None) -> str:
    """The text of the page."""
    lines = [" | ".join(["", package, *told, ""]).strip() for package, told in HOLDERS.items()]
    table = ["| package | what holds the layers | after `swap` |", "|---|---|---|", *lines]
    parts = [BEGIN.format(packages="\n".join(table))]
    if report is not None:
        told = {"machine": machine.title(report.machine), "date": report.date[:10], "commit": report.commit}
        parts += [TIMES.format(**told, torch=report.versions["torch"]), *map(_line, report.rows)]
        parts += _learning(report.curves)
    return "\n".join(part.rstrip("\n") for part in parts) + "\n"


def _line(row: Row) -> str:
    times = [formats.seconds(figure.median) for figure in (row.theirs, row.ours)]
    cells = [f"{row.package} {row.version}", row.model, *times, f"{row.ratio:.2f}", ", ".join(row.backends)]
    return "| " + " | ".join([*cells, f"{row.difference:.0e}"]) + " |"


def _learning(curves: list[Curve]) -> list[str]:
    if not curves:
        return []
    sides = [[curve for curve in curves if curve.provider == name] for name in (THEIRS, OURS)]
    theirs, ours = (mean(curve.rate for curve in side) for side in sides)
    told = {"frames": f"{curves[0].frames[-1]:,}", "seeds": len(sides[0]), "theirs": theirs, "ours": ours}
    points = zip(*(curve.frames for curve in sides[0]), strict=True)
    lines = [f"| {frames[0]:,} | {_spread(sides[0], k)} | {_spread(sides[1], k)} |" for k, frames in enumerate(points)]
    return [LEARNING.format(**told, ratio=ours / theirs), *lines]


def _spread(side: list[Curve], point: int) -> str:
    found = [curve.returns[point] for curve in side]
    return f"{mean(found):.0f} ({min(found):.0f} to {max(found):.0f})"
