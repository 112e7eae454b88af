"""Makes a `Call`, the record that the choice of a backend reads, from the arguments of a call."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch
from torch import Tensor

from ..cells import Cell
from ..derive.transformed_cells import for_engines
from ..request import precision
from ..request.call import Call
from ..request.weights import Weights

EXPANDED = "torch.nn.utils._expanded_weights.expanded_weights_impl"
"""torch's module of expanded weights. It is in ``sys.modules`` only if the process uses expanded weights."""


def call_of(
    cell: type[Cell],
    form: str,
    like: Tensor,
    weights: Weights,
    *,
    lengths: object = None,
    reset: object = None,
    packed: Tensor | None = None,
    keep: Sequence[str] = (),
    batch_first: bool = False,
    directions: int = 1,
    layers: int = 1,
    dropout: bool = False,
) -> Call:
    """The `Call` that `seqcells.call.choose` reads to choose a backend."""
    cell = cell if cell.direct else for_engines(cell)
    used = (
        ("lengths", lengths),
        ("reset", reset),
        ("packed", packed),
        ("projection", weights.hr),
        ("keep", keep or None),
    )
    options = tuple([name for name, value in used if value is not None])
    if torch.compiler.is_compiling():
        return Call(cell, form, like.device, like.dtype, options)
    if EXPANDED in sys.modules and any(type(weight).__module__ == EXPANDED for weight in weights.present()):
        options = *options, "expanded"
    uniform = False
    if packed is not None:
        steps, rows = len(packed), int(packed[0])
        uniform = int(packed[-1]) == rows
    elif form == "step":
        steps, rows = 1, len(like)
    else:
        steps, rows, _ = like.shape
        if batch_first:
            steps, rows = rows, steps
    hidden = (like.shape[-1] if weights.ih is None else weights.ih.shape[0]) // max(len(cell.gates), 1)
    width = hidden if weights.hr is None else weights.hr.shape[0]
    device, dtype, input_dtype = like.device, like.dtype, None
    autocast = None if dtype == torch.float64 else precision.autocast_dtype(device)
    if autocast:
        dtype, input_dtype = autocast, dtype
    sizes = rows, steps, directions, hidden, width, layers
    return Call(cell, form, device, dtype, options, *sizes, dropout, input_dtype, uniform)
