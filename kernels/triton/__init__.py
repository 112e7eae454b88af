"""The Triton engines: a cell's derived kernels (`device/cells.py`) run over time, by one of several plans.

`plans/plan.py` chooses the plan, and `engine` calls it. This module does not import triton.
"""

from __future__ import annotations

import os
from functools import cache
from importlib.util import find_spec

import torch

# A constant, because torch.compile cannot trace `find_spec`.
INSTALLED = find_spec("triton") is not None
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def interpreted() -> bool:
    """Whether Triton's interpreter runs the kernels, in Python on the CPU. Triton decides that when it is imported."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "yes", "on", "y")


@cache
def since_ampere(device: torch.device | None = None) -> bool:
    """Whether a GPU, or without ``device`` every GPU of this machine, supports TF32: Ampere or later. True without
    GPUs."""
    devices = range(torch.cuda.device_count()) if device is None or not torch.cuda.is_available() else [device]
    return all(torch.cuda.get_device_capability(each) >= (8, 0) for each in devices)


def why_not_clusters_available() -> str | None:
    """Why the cluster plan, whose kernels no interpreter runs, cannot run on this machine, or None."""
    if not INSTALLED:
        return "triton is not installed, whose plans have its host side"
    return None if torch.cuda.is_available() else "torch finds no GPU"


def why_not_available() -> str | None:
    """Why no kernel can run on this machine, or None."""
    if not INSTALLED:
        return "triton is not installed"
    if not torch.cuda.is_available() and not interpreted():
        return "torch finds no GPU; TRITON_INTERPRET=1 runs the kernels in Python, on the CPU, as the tests do"
    return None
