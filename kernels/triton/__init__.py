"""The Triton engines: any cell's derived kernels (`cells`), run over time by one of several plans.

`plan` says which, and `engine` follows it. Nothing here imports triton by itself.
"""

from __future__ import annotations

import os
from functools import cache
from importlib.util import find_spec

import torch

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
