"""Whether these kernels take less time than cuDNN for a layer that both can run: on an H200, see benchmarks/NOTES.md.

cuDNN launches kernels for every step, and for small layers in float32 and float16 has a persistent one of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from . import interpreted, since_ampere
from .plan import Shape, plan

if TYPE_CHECKING:
    from ...dispatch import Call

# To prepare a call takes these kernels longer, which so many steps make up for.
FEWEST_STEPS = 32
# Of cuDNN: a step forward at least, and with its product by the bytes of storage, in operations a second; what forward
# and backward take together, in forwards.
STEP_SECONDS = 10e-6
PRODUCT_RATE = {2: 110e12, 4: 30e12}
TRAINING = 2.2


def leads(call: Call) -> str | None:
    """Why a layer is for cuDNN, or None. GPUs before Ampere were not measured, and of those since an H200 alone."""
    measured = call.form == "layers" and call.rows and "packed" not in call.options
    if not measured or call.dtype.itemsize not in PRODUCT_RATE or interpreted() or not since_ampere(call.device):
        return "it was not compared with these kernels"
    if call.steps < FEWEST_STEPS:
        return f"fewer than {FEWEST_STEPS} steps take it less time to prepare"
    shape = Shape.called(call)
    if _is_persistent(shape):
        return "it has a kernel of its own for all steps of a small layer"
    if plan(shape).name not in ("single launch", "persistent"):
        return "these kernels are launched for each step too"
    from . import persistent  # not before triton is wanted

    gradients = torch.is_grad_enabled()
    product = 2 * shape.batch * shape.recurrent * shape.hidden**2 / PRODUCT_RATE[shape.dtype.itemsize]
    seconds = shape.steps * shape.directions * max(STEP_SECONDS, product) * (TRAINING if gradients else 1)
    ours = persistent.seconds(shape, gradients)
    if ours is None:
        return "these kernels' backward does not fit on the chip"
    return None if ours < seconds else "its products take less time"


def _is_persistent(shape: Shape) -> bool:
    """In bfloat16 torch has it launch each step; float16 goes up to larger layers, of few sequences."""
    if shape.dtype == torch.bfloat16:
        return False
    return shape.hidden <= 128 or (shape.dtype == torch.float16 and shape.hidden <= 256 and shape.batch <= 16)
