"""From the command's options to a plan: which cases, whom, how long."""

import argparse
from dataclasses import dataclass, replace

from seqcells.cells import REGISTRY

from . import run, shapes
from .case import Case
from .providers import BASELINE, NULL, PROVIDERS
from .suites import SUITES
from .timing import FULL, QUICK, SHORT, Effort


@dataclass(frozen=True)
class Preset:
    """What is measured unless the command says otherwise, for a device."""

    suites: tuple[str, ...]
    cells: tuple[str, ...]
    shapes: str
    dtypes: tuple[str, ...]
    effort: Effort
    everyone: bool
    """Or only the everyday providers."""
    budget: float | None = None


ALL = tuple(SUITES)
PRESETS: dict[str, dict[str, Preset]] = {
    "quick": {
        "cpu": Preset(ALL, ("lstm", "gru", "rnn_tanh"), "quick", ("float32",), QUICK, everyone=False, budget=140),
        "cuda": Preset(ALL, ("lstm", "gru"), "quick", ("tf32", "bfloat16"), QUICK, everyone=False),
    },
    "short": {
        "cpu": Preset(
            ("sequence", "training"), ("lstm", "gru"), "quick", ("float32",), QUICK, everyone=False, budget=120
        ),
        "cuda": Preset(
            ("sequence", "training", "memory"),
            ("lstm", "gru"),
            "gpu-short",
            ("bfloat16", "tf32"),
            SHORT,
            everyone=False,
            budget=180,
        ),
    },
    "full": {
        "cpu": Preset(ALL, ("lstm", "gru"), "full", ("float32",), FULL, everyone=True, budget=1140),
        "cuda": Preset(ALL, ("lstm", "gru"), "gpu", ("float32", "tf32", "bfloat16", "float16"), FULL, everyone=True),
    },
}


@dataclass
class Plan:
    """What `__main__` runs."""

    cases: list[Case]
    dtypes: list[str]
    timer: run.Timer
    budget: float | None


def plan(options: argparse.Namespace) -> Plan:
    """The preset, with what the options put in its place."""
    preset = PRESETS[options.preset][options.device]
    for name in options.cells or ():
        if name not in REGISTRY:
            raise SystemExit(f"no cell {name!r}: the registry has {', '.join(REGISTRY)}")
    try:
        wanted = shapes.named(options.shapes or [preset.shapes])
    except ValueError as problem:
        raise SystemExit(str(problem)) from None
    chosen = any(name not in shapes.SETS for name in options.shapes or ())
    suites = options.suite or (("sequence", "training", "streaming") if options.null else preset.suites)
    dtypes = list(options.dtypes or preset.dtypes)
    if options.device == "cpu" and "tf32" in dtypes:
        raise SystemExit("tf32 is for CUDA")
    cases = run.cases(suites, options.cells or preset.cells, wanted, dtypes, options.device, chosen)
    names = [BASELINE, NULL]
    if not options.null:
        others = options.providers or [p.name for p in PROVIDERS.values() if p.everyday or preset.everyone]
        names += [name for name in others if name not in names]
    providers = [PROVIDERS[name] for name in names]
    budget = options.budget or preset.budget
    cases = by_worth(cases) if budget else cases
    if options.device == "cuda":
        from .timing.events import Events

        return Plan(cases, dtypes, Events(providers, preset.effort, graphs=not options.no_graphs), budget)
    from .timing.processes import Processes

    effort = replace(preset.effort, extensions=0) if options.null else preset.effort
    return Plan(cases, dtypes, Processes(providers, effort, options.threads), budget)


def by_worth(cases: list[Case]) -> list[Case]:
    """The same, so that the first ones say most: every suite's first shape, then every suite's second."""
    place: dict[tuple[str, str, str], int] = {}
    ranked = []
    for case in cases:
        kind = (case.suite_name, case.cell_name, case.dtype_name)
        place[kind] = place.get(kind, -1) + 1
        ranked.append((place[kind], case))
    return [case for _, case in sorted(ranked, key=lambda each: each[0])]
