"""What the choice of a backend depends on, and what it comes to."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch

    from ..cells import Cell


class Call(NamedTuple):
    """What a choice depends on."""

    cell: type[Cell]
    form: str
    """``"layers"`` (input to output), ``"recurrence"`` (gates_x given), ``"step"`` (a cell module) or ``"stream"``
    (a step of a `RecurrentLayer.stream`)."""
    device: torch.device
    dtype: torch.dtype
    """What the call is computed in: under autocast, autocast's."""
    options: tuple[str, ...] = ()
    """Which of ``lengths``, ``reset``, ``packed``, ``projection`` and ``keep`` the call uses, and ``expanded``: weights
    for which torch.nn.utils gives the gradients of samples."""
    rows: int = 0
    """Sequences side by side; 0 where they were not counted."""
    steps: int = 0
    """Steps of the longest; 0 where they were not counted."""
    directions: int = 1
    hidden: int = 0
    """Hidden units; 0 where they were not counted."""
    width: int = 0
    """Units of the projected hidden state, or ``hidden``."""
    layers: int = 1
    """One upon the other."""
    dropout: bool = False
    """Whether there is any between them."""
    input_dtype: torch.dtype | None = None
    """The input's own dtype under autocast; None without autocast, where it is ``dtype``."""
    uniform: bool = False
    """Whether all sequences of a packed input have the same length."""


class Choice(NamedTuple):
    """A backend, and the reason for it."""

    backend: str
    reason: str
