"""The persistent plan where it is chosen, and not asked for by name: if `configurations.meeting` says so, by its model.

By its documentation CUDA captures a cooperative launch as a node of a graph, and so it does what is set to zero before
it; but no GPU has tried it here. So while a stream is captured this plan is taken by name alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from . import configurations, persistent
from .persistent import backward, forward, saved_like

if TYPE_CHECKING:
    from .plan import Shape

__all__ = ["backward", "forward", "refuses", "saved_like"]


def refuses(shape: Shape) -> str | None:
    """Why a layer is not for programs that meet, or None."""
    if not shape.recurrent:
        return "the cell has no recurrent product, whose steps are one launch in any plan"
    if not configurations.meeting:
        return "no GPU has run its barrier yet, so it is taken by name alone"
    if torch.cuda.is_available() and torch.cuda.is_current_stream_capturing():
        return "a CUDA graph is being captured, where it is taken by name alone"
    return persistent.refuses(shape) or persistent.slower(shape)
