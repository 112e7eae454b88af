"""Why the Triton engines cannot run a call. Triton is imported inside functions only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ...system.untraced import untraced
from . import DTYPES, interpreted
from .plans.shape import Shape, kept_by

if TYPE_CHECKING:
    from ...cells import Cell
    from ...request.call import Call


def why_not(call: Call) -> str | None:
    """Why the kernels cannot run a call, or None."""
    if call.device.type != "cuda" and not (interpreted() and call.device.type == "cpu"):
        return f"its kernels run on a GPU, and the input is on {call.device}"
    if call.dtype not in DTYPES:
        return f"its kernels take {', '.join(map(str, DTYPES))}, not {call.dtype}"
    return _why_not_by_stages(call.cell, call.options, call.dtype, call.hidden)


@untraced
def _why_not_by_stages(cell: type[Cell], options: tuple[str, ...], dtype: torch.dtype, hidden: int) -> str | None:
    """Why Triton cannot run a cell that runs by stages, or None. Kernels that the package lacks are printed here."""
    from .host import printed_kernels
    from .plans import staged_stepwise

    kept = kept_by(cell, options)
    if not printed_kernels.is_staged(cell, kept):
        return None
    if "projection" in options:
        return f"the {cell.name} cell has several stages, and no plan of Triton projects such a cell"
    return printed_kernels.why_not(cell, kept) or staged_stepwise.why_not_rows(cell, kept, dtype, hidden)


def why_not_persistent(call: Call) -> str | None:
    """Why the persistent plan cannot run a call, whatever its sizes, or None."""
    if "projection" in call.options:
        return "a projection is a product of its own in each step, which the persistent plan does not do"
    if call.dtype == torch.float64 and not interpreted():
        return "its float64 kernels spill, or do not compile"
    return why_not(call)


def why_not_clusters(call: Call) -> str | None:
    """Why the cluster plan cannot run a call, or None."""
    from .plans import cluster

    if not call.rows:
        return cluster.why_not_on(call.device)
    return cluster.why_not(Shape.of_call(call))


def clusters_in_words(call: Call) -> str:
    """How the cluster plan runs a call, or why it cannot; empty where the call's sizes are not known."""
    from .plans import cluster

    return cluster.in_words(Shape.of_call(call)) if call.rows else ""


def persistently_in_words(call: Call) -> str:
    """How the persistent plan runs a call, or why it cannot."""
    from . import persistent_engine
    from .plans import plan, wavefront

    if not call.rows:
        return wavefront.in_words(call)
    shape = Shape.of_call(call)
    why_not = persistent_engine.why_not(shape)
    words = [f"but it cannot: {why_not}" if why_not else wavefront.in_words(call)]
    words += plan.backward_in_words(persistent_engine, shape) + plan.idle_settings_in_words(shape)
    return "; ".join(filter(None, words))
