"""The persistent plan for stacks: as many layers in one launch as are worth it, each one step behind the layer below
it.

L layers of T steps then take T + L - 1 steps instead of T·L, and no GEMM over all steps comes between two layers. The
layers share the multiprocessors, and a program also holds its part of the layer's input weights. So not every stack
fits. For a stack that fits, the model of `persistent.seconds` tells whether a wavefront is faster.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ....system.settings import current_settings
from .persistent import backward, forward, saved_like, seconds, why_not, why_not_backward
from .shape import Shape

if TYPE_CHECKING:
    from ....request.call import Call

__all__ = [
    "at_once",
    "backward",
    "forward",
    "in_words",
    "saved_like",
    "seconds",
    "why_not",
    "why_not_backward",
    "why_not_wavefront",
]


def at_once(call: Call, gradients: bool) -> int:
    """How many layers of a stack run in one launch; the last launch may have fewer. 1 means layer by layer."""
    found = _found(call, gradients)
    return 1 if isinstance(found, str) else found


def why_not_wavefront(call: Call, gradients: bool) -> str | None:
    """Why a stack runs layer by layer, or None. ``gradients``: whether gradients are wanted."""
    found = _found(call, gradients)
    return found if isinstance(found, str) else None


def in_words(call: Call) -> str:
    """How a stack runs, and why; empty for a single layer."""
    if call.layers == 1:
        return ""
    if not call.rows:
        return "how many layers at once is decided at the call, by size"
    found = _found(call, torch.is_grad_enabled())
    return f"layer by layer: {found}" if isinstance(found, str) else f"by a wavefront, {found} layers at once"


def _found(call: Call, gradients: bool) -> int | str:
    """The number of layers in one launch that is the fastest, at least two, or why there is no such number."""
    if call.layers == 1:
        return "the stack has one layer"
    if call.directions > 1:
        return "a layer with two directions needs all steps of the layer below first"
    if call.dropout:
        return "there is dropout between them"
    if gradients and current_settings().recompute:
        return "backward recomputes values (settings(recompute=True))"
    shape = Shape.of_call(call)
    if shape.staged:
        return "its cell runs by stages"
    if not shape.recurrent:
        return why_not(shape._replace(layers=2))
    times = {n: time for n in range(1, call.layers + 1) if (time := _seconds(shape, call.layers, n, gradients))}
    if not {*times} - {1}:
        return "the weights of two do not fit on the chip together"
    best = min(times, key=times.__getitem__)
    return "that takes less time" if best == 1 else best


def _seconds(shape: Shape, layers: int, most: int, gradients: bool) -> float | None:
    """Seconds of a stack by the model, with ``most`` layers in a launch; None where so many do not fit."""
    whole, rest = divmod(layers, most)
    each = [seconds(shape._replace(layers=n), gradients) for n in [most] * bool(whole) + [rest] * bool(rest)]
    return None if None in each else each[0] * whole + sum(each[1:])
