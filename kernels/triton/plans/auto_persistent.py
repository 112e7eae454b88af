"""The persistent plan when the engine chooses it and no caller names it: by the plan's model, unless the setting
`meeting` is off.

A CUDA graph can capture it: the cooperative launch is a node, and so is the zeroing of memory before it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ....system.settings import current_settings
from . import persistent
from .persistent import backward, forward, saved_like, why_not_backward

if TYPE_CHECKING:
    from .shape import Shape

__all__ = ["backward", "forward", "saved_like", "why_not", "why_not_backward"]


def why_not(shape: Shape) -> str | None:
    """Why a layer is not for programs that meet, or None."""
    if not shape.recurrent:
        return "the cell has no recurrent product, whose steps are one launch in any plan"
    if not current_settings().meeting:
        return 'seqcells.settings(meeting=False) leaves cooperative launches to the name "triton-persistent"'
    return persistent.why_not(shape) or persistent.why_not_several_programs(shape) or persistent.why_not_faster(shape)
