"""A case's losses and times with torch.nn's layers and with ours, and the learning curves of an algorithm with both."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version

import numpy as np
import torch
from torch import nn

import seqcells

from .. import run
from .case import PACKAGES, Case, Step
from .report import OURS, THEIRS, Curve, Report, Row

SAMPLE = 0.2
"""The least seconds of a sample; a sample has at least one step."""
LOSSES = 3
"""Steps whose losses are compared; they also warm up."""


@contextmanager
def counted(module: nn.Module) -> Iterator[Counter[str]]:
    """Count the calls of our layers and cells inside a module, by the backend that runs them."""
    calls: Counter[str] = Counter()

    def count(layer: nn.Module, given: tuple, named: dict) -> None:
        options = {name: named[name] for name in ("lengths", "reset", "keep") if name in named}
        calls[layer.plan(given[0], **options).backend] += 1

    ours = [each for each in module.modules() if isinstance(each, (seqcells.RecurrentLayer, seqcells.RecurrentCell))]
    hooks = [layer.register_forward_pre_hook(count, with_kwargs=True) for layer in ours]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def prepared(case: Case, backend: str | None) -> tuple[nn.Module, Step, seqcells.io.swap.Swapped | None]:
    """A case's model, its step, and the report of the swap. The backend None leaves torch.nn's layers."""
    torch.manual_seed(0)
    module, prepare = case.make()
    report = None if backend is None else seqcells.swap(module, backend=backend)
    torch.manual_seed(1)
    return module, prepare(), report


def losses(step: Step) -> list[float]:
    """The first losses, each from the same random state."""
    found = []
    for k in range(LOSSES):
        torch.manual_seed(k)
        found.append(float(step()))
    return found


def difference(theirs: list[float], ours: list[float]) -> float:
    """The greatest relative difference of the losses."""
    return max(abs(b - a) / max(abs(a), 1e-30) for a, b in zip(theirs, ours, strict=True))


def row(package: str, case: Case, samples: int) -> Row:
    """A case's row; samples of both models are taken in turns."""
    _, theirs, _ = prepared(case, None)
    module, ours, report = prepared(case, "auto")
    assert report is not None
    differs = difference(losses(theirs), losses(ours))
    with counted(module) as calls:
        ours()
    steps = {THEIRS: theirs, OURS: ours}
    counts = {name: max(1, round(SAMPLE / _seconds(step, 1))) for name, step in steps.items()}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(samples):
        for name, step in steps.items():
            times[name].append(_seconds(step, counts[name]))
    figures = {name: run.figure(each, 1) for name, each in times.items()}
    told = PACKAGES[package], version(PACKAGES[package]), case.name, len(report.replaced), bool(report.adapted)
    return Row(*told, sorted(calls), differs, figures[THEIRS], figures[OURS])


def learn(report: Report, frames: int, seed: int, points: int = 8) -> None:
    """Train RecurrentPPO with torch.nn's layers and with ours, in turns, and add the learning curves to a report."""
    from .sb3_contrib import algorithm

    curves = {name: Curve(name, seed) for name in (THEIRS, OURS)}
    algorithms = {name: algorithm(seed) for name in curves}
    seqcells.swap(algorithms[OURS].policy)
    random = dict.fromkeys(curves, (torch.get_rng_state(), np.random.get_state()))
    for _ in range(points):
        for name, made in algorithms.items():
            torch.set_rng_state(random[name][0]), np.random.set_state(random[name][1])
            began = time.perf_counter()
            made.learn(frames // points, reset_num_timesteps=False)
            curve, took = curves[name], time.perf_counter() - began
            curve.seconds.append(took + (curve.seconds[-1] if curve.seconds else 0))
            curve.frames.append(made.num_timesteps)
            episodes = [episode["r"] for episode in made.ep_info_buffer]
            curve.returns.append(sum(episodes) / len(episodes))
            random[name] = torch.get_rng_state(), np.random.get_state()
    report.curves += curves.values()


def _seconds(step: Step, count: int) -> float:
    began = time.perf_counter()
    for _ in range(count):
        step()
    return (time.perf_counter() - began) / count
