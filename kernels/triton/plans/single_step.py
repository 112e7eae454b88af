"""The single-step plan: one launch for both products, the gates and the states. Backward is `stepwise`'s."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ....request.recurrence import Recurrence
from ....system.settings import current_settings
from ..device import step
from ..host import configurations, precision
from ..host.launch import once
from ..host.problem import Problem, some
from . import stepwise
from .stepwise import backward, saved_like

if TYPE_CHECKING:
    from .shape import Shape

__all__ = ["backward", "fixed", "forward", "saved_like", "why_not"]


def why_not(shape: Shape) -> str | None:
    """Why a layer is not for the kernel of a single step, or None."""
    if shape.steps != 1 or shape.layers > 1:
        return ""
    if not shape.recurrent:
        return "the cell has no recurrent product"
    if shape.has_projection:
        return "a projection is a product of its own in each step"
    if shape.batch > configurations.STEP_BATCH:
        return f"more than {configurations.STEP_BATCH} sequences would read the weights too often"
    return None


def forward(q: Recurrence, save: bool) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Run a layer. Returns output (1, B, D·H), final states, tensors that backward needs."""
    if q.lengths is not None or q.reset is not None:
        return stepwise.forward(q, save, fused=q.outside.shape[1] <= configurations.FUSED_ROWS)
    with torch.cuda.device_of(q.outside):
        return _forward(Problem(q), save)


def _forward(q: Problem, save: bool) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    output, final = q.empty(1, q.batch, q.directions * q.hidden), [torch.empty_like(state) for state in q.states]
    saved = q.saved(current_settings().recompute) if save else None
    given: dict[str, Any] = {"x": q.outside.contiguous()}
    if q.input is not None:
        weight, bias = q.input_weights
        given = {"input": q.input.contiguous(), "weight_ih": weight, "bias_ih": bias}
    arguments = fixed(q)
    once(
        step.forward,
        arguments.pop("grid"),
        **arguments,
        **given,
        weight=q.hh,
        bias=q.bias,
        initial=q.each(q.states),
        parameters=q.parameters,
        output=output,
        final=tuple(final),
        saved=saved and some(saved.values),
        after=saved and some(saved.after),
    )
    return output, final, list(saved or ())


def fixed(q: Problem) -> dict[str, Any]:
    """The arguments of such a layer's launch other than tensors, and its grid."""
    features = 0 if q.input is None else q.input.shape[-1]
    mode = precision.mode(q.dtype)
    tile = configurations.single_step(q.batch, q.hidden, features or q.hidden, q.directions, q.dtype, mode)
    common = {"cell": q.kernels.forward, "batch": q.batch, "size": q.hidden, "features": features}
    common |= {"directions": q.directions, "precision": mode}
    return {**tile, **common, **q.counts(current_settings().recompute)}
