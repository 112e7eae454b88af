"""Makes a plan from the command's options: the cases, the providers, the time."""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from seqcells.cells import REGISTRY

from . import run, shapes
from .budget import by_worth
from .case import Case
from .providers import AA, BASELINE, ONE_THREAD, PROVIDERS, TWICE
from .suites import SUITES
from .timing import FULL, QUICK, SHORT, Effort


@dataclass(frozen=True)
class Preset:
    """The defaults of a preset on one device."""

    suites: tuple[str, ...]
    """The most telling suites first: where time is short, the last suites have fewer shapes."""
    cells: tuple[str, ...]
    shapes: str
    dtypes: tuple[str, ...]
    effort: Effort
    providers: tuple[str, ...]
    budget: float | None = None
    most: Mapping[str, int] = field(default_factory=dict)
    """The largest number of shapes of a suite, if the user has chosen neither suites nor shapes."""


EVERYONE = tuple(PROVIDERS)
EVERYDAY = tuple(provider.name for provider in PROVIDERS.values() if provider.everyday)
# The choices of a CPU user. Our backends by name are left out, as they repeat what `auto` takes; Keras loops in Python.
TELLING = (
    *(BASELINE, AA, "seqcells auto", "seqcells auto cell", "seqcells stream", ONE_THREAD, TWICE),
    *("torch.nn cell loop", "onnxruntime", "openvino"),
)
CPU = ("sequence", "training", "streaming", "loaded", "stepping", "packed", "memory", "step")
CUDA = ("step", "sequence", "training", "streaming", "stepping", "packed", "memory")
PRESETS: dict[str, dict[str, Preset]] = {
    "quick": {
        # Without `step`, because `sequence` says the same.
        "cpu": Preset(
            CPU[:-1],
            ("lstm", "gru"),
            "quick",
            ("float32",),
            QUICK,
            TELLING,
            budget=140,
            most={"training": 2, "streaming": 2, "loaded": 1, "stepping": 1},
        ),
        "cuda": Preset(CUDA, ("lstm", "gru"), "quick", ("tf32", "bfloat16"), QUICK, EVERYDAY),
    },
    "short": {
        "cpu": Preset(("sequence", "training"), ("lstm", "gru"), "quick", ("float32",), QUICK, TELLING, budget=120),
        "cuda": Preset(
            ("sequence", "training", "memory"),
            ("lstm", "gru"),
            "gpu-short",
            ("bfloat16", "tf32"),
            SHORT,
            EVERYDAY,
            budget=180,
        ),
    },
    "full": {
        "cpu": Preset(CPU, ("lstm", "gru"), "full", ("float32",), FULL, EVERYONE, budget=1140, most={"loaded": 1}),
        "cuda": Preset(CUDA, ("lstm", "gru"), "gpu", ("float32", "tf32", "bfloat16", "float16"), FULL, EVERYONE),
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
    """The plan of the preset, with the options in place of its defaults."""
    preset = PRESETS[options.preset][options.device]
    for name in options.cells or ():
        if name not in REGISTRY:
            raise SystemExit(f"no cell {name!r}: the registry has {', '.join(REGISTRY)}")
    try:
        wanted = shapes.named(options.shapes or [preset.shapes])
    except ValueError as problem:
        raise SystemExit(str(problem)) from None
    chosen = any(name not in shapes.SETS for name in options.shapes or ())
    suites = options.suite or (("sequence", "training", "streaming") if options.aa else preset.suites)
    dtypes = list(options.dtypes or preset.dtypes)
    if options.device == "cpu" and "tf32" in dtypes:
        raise SystemExit("tf32 is for CUDA")
    under_load = [name for name, suite in SUITES.items() if suite.loads]
    if options.device != "cpu" and set(suites) & set(under_load):
        raise SystemExit(f"busy processes are for the CPU: not {', '.join(under_load)}")
    if options.loads and not set(suites) & set(under_load):
        raise SystemExit(f"--loads is for {', '.join(under_load)}")
    most = {} if options.suite or options.shapes else preset.most
    loads = tuple(options.loads) if options.loads else None
    cells = options.cells or preset.cells
    cases = run.cases(suites, cells, wanted, dtypes, options.device, chosen, loads, most)
    names = [BASELINE, AA]
    if not options.aa:
        names += [name for name in options.providers or preset.providers if name not in names]
    providers = [PROVIDERS[name] for name in names]
    budget = options.budget or preset.budget
    cases = by_worth(cases) if budget else cases
    if options.device == "cuda":
        from .timing.events import Events

        return Plan(cases, dtypes, Events(providers, preset.effort, graphs=not options.no_graphs), budget)
    from .timing.processes import Processes

    effort = replace(preset.effort, extensions=0) if options.aa else preset.effort
    return Plan(cases, dtypes, Processes(providers, effort, options.threads), budget)
