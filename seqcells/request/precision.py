"""The dtypes of computations: working dtypes, bfloat16 products, and autocast."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from ..system.untraced import constant
from .weights import Weights

# float16 and bfloat16 are storage dtypes: states and sums are float32.
WORKING_DTYPE = {torch.float16: torch.float32, torch.bfloat16: torch.float32}


def bfloat16_products_allowed() -> bool:
    """Whether float32 layers on the CPU may round the operands of products to bfloat16. Sums stay float32.

    The switches are torch's own. ``torch.backends.mkldnn.rnn.fp32_precision = "bf16"`` allows it. If that attribute has
    no setting, it inherits the setting of ``torch.backends.mkldnn`` or ``torch.backends``. If these have none either,
    ``torch.set_float32_matmul_precision("medium")`` allows it. (torch.nn follows only the first switch, and not on
    every processor.)
    """
    own = _setting("mkldnn", "rnn")
    return own == "bf16" or (own == "none" and _setting("mkldnn", "matmul") == "bf16")


# The getter behind the properties of `torch.backends`, in a seventh of their time: a single step asks at each call.
_setting = torch._C._get_fp32_precision_getter


@constant
def _has_autocast(device: str) -> bool:
    """Whether autocast exists for a device type. (torch.compile cannot trace this question in every version.)"""
    return torch.amp.is_autocast_available(device)


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """The dtype of autocast on a device. None if autocast is off, or if the device has none, as meta."""
    if not _has_autocast(device.type) or not torch.is_autocast_enabled(device.type):
        return None
    return torch.get_autocast_dtype(device.type)


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """A context without autocast. It does nothing if autocast is off, because it would mark exported graphs."""
    return nullcontext() if autocast_dtype(device) is None else torch.autocast(device.type, enabled=False)


def under_autocast(
    input: Tensor,
    states: Sequence[Tensor],
    weights: Sequence[Weights],
    reset_states: Sequence[Tensor] | None,
) -> tuple[Tensor, Sequence[Tensor], Sequence[Weights], Sequence[Tensor] | None]:
    """All tensors in autocast's dtype, as cuDNN's recurrent layers get them. Without autocast, and for float64 input,
    the tensors are unchanged."""
    dtype = autocast_dtype(input.device)
    if dtype is None or input.dtype == torch.float64:
        return input, states, weights, reset_states
    return (
        input.to(dtype),
        [state.to(dtype) for state in states],
        [w.replaced([tensor.to(dtype) for tensor in w.present()]) for w in weights],
        None if reset_states is None else [state.to(dtype) for state in reset_states],
    )
