"""Whether torch's own operator runs a kind of call on a device; one small call is tried if that is not known.

Each kind of call is tried once per process. On a CPU only oneDNN's LSTM in half precision may fail: oneDNN lacks it for
some processors, and torch finds out too late. All other calls on a CPU use operators that exist for every dtype. For
devices without kernels in this package nothing is known: MPS has no projections, and many devices have no fused cells.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from textwrap import shorten
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from .torch_ops import OPERATORS

if TYPE_CHECKING:
    from ..cells import Cell
    from ..request.call import Call

SIZE = 16
"""The number of features, and of hidden units, in a trial call: as many as one vector register has."""


class Kind(NamedTuple):
    """The properties of a call that decide whether torch's operator runs it."""

    cell: type[Cell]
    step: bool
    device: torch.device
    dtype: torch.dtype
    autocast: torch.dtype | None
    """The dtype that autocast computes in; None without autocast."""
    gradients: bool
    packed: bool
    projected: bool
    one_dnn: bool
    """Whether torch may use oneDNN."""


def why_not_run(call: Call) -> str | None:
    """The error message of torch's operator for such a call on its device; None if the call works or is not tried.

    The call must be one that `seqcells.backends.torch_ops` does not refuse.
    """
    if call.device.type == "cpu" and not _by_one_dnn_in_half(call):
        return None
    kind = Kind(
        call.cell,
        call.form == "step",
        call.device,
        call.input_dtype or call.dtype,
        call.dtype if call.input_dtype else None,
        torch.is_grad_enabled(),
        "packed" in call.options,
        "projection" in call.options,
        bool(torch.backends.mkldnn.enabled),
    )
    return _failure(kind)


def _by_one_dnn_in_half(call: Call) -> bool:
    half = call.dtype in (torch.bfloat16, torch.float16)
    if not half or call.cell.name != "lstm" or call.form == "step" or "projection" in call.options:
        return False
    return "packed" not in call.options or call.uniform


@cache
def _failure(kind: Kind) -> str | None:
    # A thread of its own has none of the caller's traces, dispatch modes and transforms.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(_try, kind).result()


def _try(kind: Kind) -> str | None:
    """The first line of the error that one time step of one sequence raises, with gradients if ``kind`` has them.

    The result is None if no error is raised.
    """
    try:
        with torch.set_grad_enabled(kind.gradients), _half(kind):
            output = _call(kind)
            if kind.gradients:
                output.backward(torch.ones_like(output))
    except Exception as error:  # an unknown device may raise an error of any type
        return _first_line(error)
    return None


def _first_line(error: Exception) -> str:
    """The first line of an error, shortened, as torch's error for a missing operator lists all devices."""
    return shorten(str(error).partition("\n")[0], 200, placeholder=" …") or type(error).__name__


def _half(kind: Kind) -> AbstractContextManager:
    return nullcontext() if kind.autocast is None else torch.autocast(kind.device.type, kind.autocast)


def _call(kind: Kind) -> Tensor:
    """The first result of torch's operator, called with zeros."""

    def zeros(*shape: int) -> Tensor:
        return torch.zeros(shape, dtype=kind.dtype, device=kind.device, requires_grad=kind.gradients)

    layers, step = OPERATORS[kind.cell.name]
    rows, width = len(kind.cell.gates) * SIZE, SIZE // 2 if kind.projected else SIZE
    weights = [zeros(rows, SIZE), zeros(rows, width)]
    if kind.step:
        states = [zeros(1, SIZE) for _ in kind.cell.states]
        result = step(zeros(1, SIZE), states if len(states) > 1 else states[0], *weights, None, None)
        return result if isinstance(result, Tensor) else result[0]
    states = [zeros(1, 1, SIZE if k else width) for k in range(len(kind.cell.states))]
    hx = tuple(states) if len(states) > 1 else states[0]
    flat = [*weights, zeros(width, SIZE)] if kind.projected else weights
    rest = hx, flat, False, 1, 0.0, kind.gradients, False
    if kind.packed:
        return layers(zeros(1, SIZE), torch.ones(1, dtype=torch.int64, device="cpu"), *rest)[0]
    return layers(zeros(1, 1, SIZE), *rest, False)[0]
