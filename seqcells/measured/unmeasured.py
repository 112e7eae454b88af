"""What is taken for calls that no table of measured seconds tells of, and what makes tables tell nothing."""

import torch

from ..kernels import triton
from ..kernels.cpu import refusals
from ..request.call import Call, Choice
from ..system.settings import current_settings


def switched_off() -> str | None:
    """Why on no GPU what was measured is what would run, or None: this may change from call to call."""
    if triton.interpreted():
        return "Triton's interpreter runs our kernels in Python"
    return None if current_settings().meeting else "settings(meeting=False), and the kernels measured were with it"


def is_unlike_others(call: Call, training: bool) -> bool:
    """Whether other machines' tables tell nothing of a call on this one.

    Of GPUs those before Ampere were not measured, and of a GPU with fewer multiprocessors our kernels may launch every
    step, where on a larger one a layer's weights fit on the chip and all steps are one launch.
    """
    if call.device.type == "cpu":
        return call.dtype == torch.bfloat16 and refusals.lacks_bfloat16_unit()
    if not call.rows or not triton.since_ampere(call.device):
        return True
    from ..kernels.triton.plans import persistent, plan
    from ..kernels.triton.plans.shape import Shape

    shape = Shape.called(call)
    return plan.plan(shape).name not in ("single launch", "persistent") or persistent.seconds(shape, training) is None


def choice(call: Call, training: bool) -> Choice:
    """By what torch has kernels for, where no table covers the call: on a GPU for all layers, and on a CPU a fused one,
    oneDNN's, for padded LSTM layers alone."""
    if call.device.type != "cpu":
        return Choice("torch", "no table covers the call")
    if call.form == "step" or call.steps == 1:
        if training:
            return Choice("torch", "the way through torch's operators is shorter for single steps with gradients")
        return Choice("cpu", "a single step without gradients is one call of the engine")
    fused = call.cell.name == "lstm" and not {"packed", "projection"} & {*call.options}
    if not fused or call.dtype == torch.float64:
        return Choice("cpu", "torch has no fused kernel for this call on the CPU")
    if call.dtype == torch.bfloat16 and refusals.lacks_bfloat16_unit():
        return Choice("cpu", "torch's kernel needs a unit for products of bfloat16, which this processor lacks")
    return Choice("torch", "no table covers the call")
