"""Which of the Triton engine's plans runs a layer, and why. A plan's module is imported only when it is needed.

A plan is a module with an engine's functions and ``why_not(shape)``, which takes a `Shape` or a `Problem`. It returns
why the plan does not take the layer, or None. It returns "" where the reason would interest nobody.
"""

from __future__ import annotations

from collections.abc import Container
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

import torch

from ....system.settings import current_settings
from .shape import Shape

if TYPE_CHECKING:
    from types import ModuleType

    from ....request.call import Call

SCAN = {"scan": ("scan", "a state that is linear in the one before, few sequences: chunks of them side by side")}
# Each plan's module, and a description. The first plan that takes a layer runs it.
PLANS = SCAN | {
    "single step": ("single_step", "one step: both products, the gates and the states in one launch"),
    "single launch": (
        "single_launch",
        "small layers of some length: all steps in one launch, each on one multiprocessor",
    ),
    "persistent": (
        "auto_persistent",
        "layers of some length that fit on the chip: all steps in one launch, with a grid barrier at each step",
    ),
    "fused step": ("fused_step", "few sequences: one launch a step, which makes the product too"),
    "stepwise": ("stepwise", "any size: a product of the GEMM library and one launch a step"),
}
# The same for cells that run by stages. A cell does not if the package has printed kernels of one stage for it. Any
# cell runs by stages when values of its steps are kept.
STAGED_PLANS = SCAN | {
    "persistent": (
        "auto_staged_persistent",
        "several stages that fit on the chip: all steps in one launch, with a grid barrier before each stage",
    ),
    "stepwise": ("staged_stepwise", "several stages: of each its products by the GEMM library and one launch, a step"),
}


class Plan(NamedTuple):
    """The name of the chosen plan, and why the plans before it were not chosen."""

    name: str
    reason: str
    staged: bool = False
    """Whether the cell runs by stages."""

    @property
    def module(self) -> ModuleType:
        """The plan's engine."""
        plans = STAGED_PLANS if self.staged else PLANS
        return import_module(f".{plans[self.name][0]}", __package__)


def plan(shape: Shape, without: Container[str] = ()) -> Plan:
    """The first of `PLANS`, or of `STAGED_PLANS`, that takes a layer of that shape. Plans in ``without`` are
    skipped."""
    against: list[str] = []
    for name in STAGED_PLANS if shape.staged else PLANS:
        if name in without:
            continue
        chosen = Plan(name, "; ".join(against), shape.staged)
        why_not = chosen.module.why_not(shape)
        if why_not is None:
            return chosen
        against += [f"not {name}: {why_not}"] if why_not else []
    raise RuntimeError(f"no plan for this layer: {'; '.join(against)}")


def backward_in_words(module: ModuleType, shape: Shape) -> list[str]:
    """A phrase that says why backward runs by the stepwise plan; none where backward runs by the plan of forward."""
    why_not = getattr(module, "why_not_backward", lambda shape: None)(shape) if torch.is_grad_enabled() else None
    return [f"backward by stepwise: {why_not}"] if why_not else []


def idle_settings_in_words(shape: Shape) -> list[str]:
    """A phrase that names settings which differ from the defaults but do nothing for a layer; none without such
    settings."""
    held = current_settings()
    idle = [name for name in ("recompute", "flags") if shape.staged and getattr(held, name)]
    return [f"{' and '.join(idle)} by seqcells.settings: nothing for a cell that runs by stages"] if idle else []


def in_words(call: Call) -> str:
    """The plan for a call, and why."""
    if not call.rows:
        return "its plan is chosen at the call, by size"
    chosen = plan(Shape.of_call(call))
    words = [f"by {chosen.name}" + (f" ({chosen.reason})" if chosen.reason else "")]
    words += backward_in_words(chosen.module, Shape.of_call(call)) + idle_settings_in_words(Shape.of_call(call))
    if chosen.name == "persistent" and call.layers > 1:
        from . import wavefront

        words.append(wavefront.in_words(call))
    return "; ".join(words)
