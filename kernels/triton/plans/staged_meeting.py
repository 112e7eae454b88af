"""The persistent plan for cells that run by stages, when the engine chooses it and no caller names it: see
`meeting`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ....system.settings import current_settings
from . import staged_persistent
from .staged_persistent import backward, forward, refuses_backward, saved_like

if TYPE_CHECKING:
    from .shape import Shape

__all__ = ["backward", "forward", "refuses", "refuses_backward", "saved_like"]


def refuses(shape: Shape) -> str | None:
    """Why a layer is not for programs that meet, or None."""
    if not current_settings().meeting:
        return 'seqcells.settings(meeting=False) leaves cooperative launches to the name "triton-persistent"'
    return staged_persistent.refuses(shape) or staged_persistent.slower(shape)
