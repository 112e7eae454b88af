"""What each dtype is computed in."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from ..system.constant import constant
from .weights import Weights

# float16 and bfloat16 are for storage: states and sums are float32.
WORKING_DTYPE = {torch.float16: torch.float32, torch.bfloat16: torch.float32}


def bfloat16_products_allowed() -> bool:
    """Whether float32 layers on the CPU may round what they multiply to bfloat16; sums stay float32.

    The switches are torch's own: ``torch.backends.mkldnn.rnn.fp32_precision = "bf16"``, or the same on
    ``torch.backends.mkldnn`` or ``torch.backends``, whose setting it takes on unless it has one; and where it has none,
    ``torch.set_float32_matmul_precision("medium")``. (torch.nn heeds only
    the first, and not on every processor.)
    """
    own = _setting("mkldnn", "rnn")
    return own == "bf16" or (own == "none" and _setting("mkldnn", "matmul") == "bf16")


# What the properties of `torch.backends` ask, at a seventh of their time: single steps ask before each.
_setting = torch._C._get_fp32_precision_getter


@constant
def _has_autocast(device: str) -> bool:
    """Whether there is any on devices of a type. (torch.compile does not follow the question in every version.)"""
    return torch.amp.is_autocast_available(device)


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """What autocast computes in on a device; None where it is off, or unknown there, as on meta."""
    if not _has_autocast(device.type) or not torch.is_autocast_enabled(device.type):
        return None
    return torch.get_autocast_dtype(device.type)


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """What runs inside chooses its own precisions; entered only where needed, since it marks exported graphs."""
    return nullcontext() if autocast_dtype(device) is None else torch.autocast(device.type, enabled=False)


def under_autocast(
    input: Tensor,
    states: Sequence[Tensor],
    weights: Sequence[Weights],
    reset_states: Sequence[Tensor] | None,
) -> tuple[Tensor, Sequence[Tensor], Sequence[Weights], Sequence[Tensor] | None]:
    """Under autocast, everything in its dtype, as cuDNN's recurrent layers are given it."""
    dtype = autocast_dtype(input.device)
    if dtype is None or input.dtype == torch.float64:
        return input, states, weights, reset_states
    return (
        input.to(dtype),
        [state.to(dtype) for state in states],
        [w.replaced([tensor.to(dtype) for tensor in w.present()]) for w in weights],
        None if reset_states is None else [state.to(dtype) for state in reset_states],
    )
