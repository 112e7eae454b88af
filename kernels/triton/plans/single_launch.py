"""The single-launch plan: the persistent plan where one program holds all of a layer's units, so that no programs meet.

It is an ordinary launch without a grid barrier. One multiprocessor runs all steps of 16 sequences, or of fewer if there
are fewer. By the model of `persistent.why_not_faster` that takes less time than launching each step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..host import configurations, precision
from . import persistent
from .persistent import backward, forward, saved_like

if TYPE_CHECKING:
    from .shape import Shape

__all__ = ["backward", "forward", "saved_like", "why_not"]


def why_not(shape: Shape) -> str | None:
    """Why a layer is not for a single launch, or None."""
    if not shape.recurrent:
        return "the cell has no recurrent product, whose steps are one launch in any plan"
    if not configurations.alone(shape.hidden, shape.recurrent, shape.dtype, precision.mode(shape.dtype)):
        return "one multiprocessor does not hold its recurrent weights"
    return persistent.why_not(shape) or persistent.why_not_faster(shape)
