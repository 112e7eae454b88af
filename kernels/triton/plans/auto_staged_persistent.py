"""The persistent plan for cells that run by stages, when the engine chooses it and no caller names it: unless the
setting `meeting` is off."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ....system.settings import current_settings
from . import staged_persistent
from .staged_persistent import backward, forward, saved_like, why_not_backward

if TYPE_CHECKING:
    from .shape import Shape

__all__ = ["backward", "forward", "saved_like", "why_not", "why_not_backward"]


def why_not(shape: Shape) -> str | None:
    """Why a layer is not for programs that meet, or None."""
    if not current_settings().meeting:
        return 'seqcells.settings(meeting=False) leaves cooperative launches to the name "triton-persistent"'
    return staged_persistent.why_not(shape) or staged_persistent.why_not_faster(shape)
