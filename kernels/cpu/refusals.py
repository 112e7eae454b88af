"""Why the CPU engine cannot run a call. This module does not load the extension when it is imported."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...derive.transformed_cells import transformed
from ...system.untraced import untraced

if TYPE_CHECKING:
    import torch

    from ...cells import Cell
    from ...request.call import Call


@untraced
def _why_not(cell: type[Cell], dtype: torch.dtype, options: tuple[str, ...]) -> str | None:
    """Why no kernels run a cell, or None. A cell that the extension was built without is compiled here."""
    from . import compiled

    if "projection" in options:
        cell = transformed(cell, "projection(1)")  # the reason is the same for any size
    reason = compiled.why_not(cell, dtype)
    if "keep" not in options or reason:
        return reason
    # A cell with kept values is another program, which is compiled when the layer runs.
    reason = compiled.why_not_compile()
    return reason and f"its kernels keep no values of steps, and it compiles none: {reason}"


def lacks_bfloat16_unit() -> bool:
    """Whether the instruction set in use is known to have no unit for products of bfloat16; other instruction sets may
    have one."""
    from . import library

    return library.target in ("avx512", "avx2")


def why_not(call: Call) -> str | None:
    """Why the kernels cannot run a call, or None."""
    if call.device.type != "cpu":
        return f"its kernels run on a CPU, and the input is on {call.device}"
    if not call.dtype.is_floating_point:
        return f"its kernels take floating-point numbers, not {call.dtype}"
    return _why_not(call.cell, call.dtype, call.options)
