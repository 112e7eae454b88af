"""The record of a call that the choice of a backend reads, and the record of the choice."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch

    from ..cells import Cell


class Call(NamedTuple):
    """The properties of a call that the choice of a backend depends on."""

    cell: type[Cell]
    form: str
    """``"layers"`` (from the input), ``"recurrence"`` (from ``gates_x``), ``"step"`` (a cell module) or ``"stream"``
    (a step of a `RecurrentLayer.stream`)."""
    device: torch.device
    dtype: torch.dtype
    """The dtype of the computation. Under autocast it is autocast's dtype."""
    options: tuple[str, ...] = ()
    """The options in use: ``lengths``, ``reset``, ``packed``, ``projection``, ``keep``, and ``expanded`` for weights
    with which torch.nn.utils computes gradients of samples."""
    rows: int = 0
    """The number of sequences; 0 if unknown."""
    steps: int = 0
    """The number of time steps of the longest sequence; 0 if unknown."""
    directions: int = 1
    hidden: int = 0
    """The number of hidden units; 0 if unknown."""
    width: int = 0
    """The number of units of the projected hidden state. Without a projection it equals ``hidden``."""
    layers: int = 1
    """The number of stacked layers."""
    dropout: bool = False
    """Whether there is dropout between the layers."""
    input_dtype: torch.dtype | None = None
    """The input's own dtype under autocast. None without autocast, where the input has ``dtype``."""
    uniform: bool = False
    """Whether all sequences of a packed input have the same length."""


class Choice(NamedTuple):
    """The chosen backend, and the reason for the choice in words."""

    backend: str
    reason: str
