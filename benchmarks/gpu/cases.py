"""The cases of a GPU session, by name, in the order of their worth."""

from .. import run, shapes
from ..budget import by_worth
from ..case import Case
from ..providers import AA, BASELINE, PROVIDERS, Provider
from ..shapes import Shape

# Both cells and two dtypes come early, so that an interrupted session has measured all of them.
KINDS = (
    *(("lstm", "bfloat16"), ("gru", "tf32"), ("lstm", "tf32"), ("gru", "bfloat16")),
    *(("lstm", "float16"), ("gru", "float16")),
)
WHOLE = shapes.named(["gpu-minutes", "gpu-steps"])
STEPWISE = [Shape(32, 256, 16), Shape(1, 64, 16)]
SETS = {
    "minutes": {
        "sequence": WHOLE,
        "training": WHOLE,
        "streaming": STEPWISE,
        "stacked": [Shape(32, 256, 300)],
        "packed": [Shape(32, 256, 200)],
        "stacked-training": [Shape(32, 256, 300)],
        "stepping": STEPWISE,
    },
    # The cases of a rehearsal, interpreted on a CPU.
    "rehearsal": {
        "sequence": [Shape(2, 16, 4), Shape(1, 8, 2)],
        "training": [Shape(2, 16, 4)],
        "streaming": [Shape(1, 8, 2)],
    },
}
"""For each named set: the shapes by suite."""

RIVALS = ("torchrl triton", "flashrnn cuda_fused", "flashrnn cuda", "flashrnn triton_fused")
OF_LAYERS = (BASELINE, AA, "seqcells auto", "seqcells triton", *RIVALS)
OF_STEPS = (BASELINE, AA, "seqcells auto", "seqcells auto cell", "seqcells stream", "torch.nn cell loop")
REHEARSED = (BASELINE, AA, "seqcells triton")


def planned(rehearsal: bool) -> list[Case]:
    """All cases of a session, in an order in which the first cases cover all suites."""
    device, kinds = ("cpu", (("lstm", "float32"), ("gru", "float32"))) if rehearsal else ("cuda", KINDS)
    suites = SETS["rehearsal" if rehearsal else "minutes"]
    return by_worth(
        case
        for suite, wanted in suites.items()
        for cell, dtype in kinds
        for case in run.cases([suite], [cell], wanted, [dtype], device, chosen=True)
    )


def providers(case: Case, rehearsal: bool) -> list[Provider]:
    """The providers of a case: torch.nn twice, then ours, then the rivals."""
    names = REHEARSED if rehearsal else OF_STEPS if case.suite.streaming else OF_LAYERS
    return [PROVIDERS[name] for name in names]
