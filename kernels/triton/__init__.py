"""The Triton engines: any cell's derived kernels (`cells`), run over time by one of several plans.

`plan` says which, and `engine` follows it. Nothing here imports triton by itself.
"""

from __future__ import annotations

import os
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch

from ...constant import untraced

if TYPE_CHECKING:
    from ...cells import Cell
    from ...dispatch import Call

# Asked here, for torch.compile does not follow the question.
INSTALLED = find_spec("triton") is not None
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def interpreted() -> bool:
    """Whether Triton runs its kernels in Python, on the CPU: decided when triton is imported."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "yes", "on", "y")


@cache
def since_ampere(device: torch.device | None = None) -> bool:
    """Whether a GPU, or every one of this machine's, is of the generation that brought TF32 or a later one."""
    devices = range(torch.cuda.device_count()) if device is None or not torch.cuda.is_available() else [device]
    return all(torch.cuda.get_device_capability(each) >= (8, 0) for each in devices)


def unavailable() -> str | None:
    """Why no kernel can run here, or None."""
    if not INSTALLED:
        return "triton is not installed"
    if not torch.cuda.is_available() and not interpreted():
        return "torch finds no GPU; TRITON_INTERPRET=1 runs the kernels in Python, on the CPU, as the tests do"
    return None


def refuses(call: Call) -> str | None:
    """Why the kernels cannot run a call, or None."""
    if call.device.type != "cuda" and not (interpreted() and call.device.type == "cpu"):
        return f"its kernels run on a GPU, and the input is on {call.device}"
    if call.dtype not in DTYPES:
        return f"its kernels take {', '.join(map(str, DTYPES))}, not {call.dtype}"
    return _why_not_by_stages(call.cell, call.options, call.dtype, call.hidden)


@untraced
def _why_not_by_stages(cell: type[Cell], options: tuple[str, ...], dtype: torch.dtype, hidden: int) -> str | None:
    """Why a cell that runs by stages cannot, or None; what the package has no kernels for is printed here."""
    from . import plan, printed, staged_stepwise

    kept = plan.kept_by(cell, options)
    if not printed.runs(cell, kept):
        return None
    if "projection" in options:
        return f"the {cell.name} cell runs by stages here, and none is of a projection"
    return printed.why_not(cell, kept) or staged_stepwise.why_not_rows(cell, kept, dtype, hidden)


def refuses_persistently(call: Call) -> str | None:
    """Why the persistent plan cannot run a call, whatever its sizes, or None."""
    if "projection" in call.options:
        return "a projection is a product of its own in each step, which the persistent plan does not do"
    if call.dtype == torch.float64 and not interpreted():
        return "its kernels spill in float64, where the compiler takes them at all"
    return refuses(call)


def persistently_in_words(call: Call) -> str:
    """How the persistent plan runs a call, or cannot."""
    from . import by_name, plan, wavefront

    if not call.rows:
        return wavefront.in_words(call)
    shape = plan.Shape.called(call)
    why_not = by_name.refuses(shape)
    words = [f"but it cannot: {why_not}" if why_not else wavefront.in_words(call)]
    words += plan.backward_in_words(by_name, shape) + plan.idle_settings_in_words(shape)
    return "; ".join(filter(None, words))
