"""The single-launch plan: the persistent one where a program holds all of a layer's units, so that no two ever meet.

It is then an ordinary launch, with no barrier in it. A step is left to a multiprocessor for every 16 sequences, however
few: that is less time than launching the step would take, by the model of `persistent.slower`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..host import configurations, precision
from . import persistent
from .persistent import backward, forward, saved_like

if TYPE_CHECKING:
    from .shape import Shape

__all__ = ["backward", "forward", "refuses", "saved_like"]


def refuses(shape: Shape) -> str | None:
    """Why a layer is not for a single launch, or None."""
    if not shape.recurrent:
        return "the cell has no recurrent product, whose steps are one launch in any plan"
    if not configurations.alone(shape.hidden, shape.recurrent, shape.dtype, precision.mode(shape.dtype)):
        return "one multiprocessor does not hold its recurrent weights"
    return persistent.refuses(shape) or persistent.slower(shape)
