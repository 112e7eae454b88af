"""The plan of fused steps, for few sequences: one launch makes the product and the gates. Its code is in `stepwise`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ..host import configurations
from . import stepwise
from .stepwise import backward, saved_like

if TYPE_CHECKING:
    from .shape import Shape

__all__ = ["backward", "forward", "saved_like", "why_not"]

forward = partial(stepwise.forward, fused=True)


def why_not(shape: Shape) -> str | None:
    """Why a layer is not for fused steps, or None."""
    if not shape.recurrent:
        return "the cell has no recurrent product"
    if shape.has_projection:
        return "a projection is a product of its own in each step"
    if shape.batch > configurations.FUSED_ROWS:
        return f"more than {configurations.FUSED_ROWS} sequences would read the weights several times a step"
    return None
