"""The choice for calls that no table of measured seconds covers, and the reasons why a table does not apply."""

import torch

from ..kernels import triton
from ..kernels.cpu import refusals
from ..request.call import Call, Choice
from ..system.settings import current_settings


def why_not_tables() -> str | None:
    """Why tables of GPUs do not apply at present, since other kernels would run than were measured, or None.

    The answer may change from call to call.
    """
    if triton.interpreted():
        return "Triton's interpreter runs our kernels in Python"
    return None if current_settings().meeting else "settings(meeting=False), and the kernels measured were with it"


def is_unlike_others(call: Call, training: bool) -> bool:
    """Whether tables of other machine classes do not apply to a call on this machine.

    GPUs before Ampere were not measured. A larger GPU may hold a layer's weights on the chip and run all steps in one
    launch. Then a GPU with fewer multiprocessors may still need a launch for every step.
    """
    if call.device.type == "cpu":
        return call.dtype == torch.bfloat16 and refusals.lacks_bfloat16_unit()
    if not call.rows or not triton.since_ampere(call.device):
        return True
    from ..kernels.triton.plans import persistent, plan
    from ..kernels.triton.plans.shape import Shape

    shape = Shape.of_call(call)
    return plan.plan(shape).name not in ("single launch", "persistent") or persistent.seconds(shape, training) is None


def choice(call: Call, training: bool) -> Choice:
    """The choice if no table of measured seconds covers the call: torch's operator where torch has a fused kernel.

    On a GPU torch has kernels for all layers, on a CPU only for padded LSTM layers (oneDNN's). Our kernels run single
    steps on a CPU without gradients, and torch's operators run those with gradients.
    """
    if call.device.type != "cpu":
        return Choice("torch", "no table of measured seconds covers the call")
    if call.form == "step" or call.steps == 1:
        if training:
            return Choice("torch", "torch's operator has less overhead for single steps with gradients")
        return Choice("cpu", "a single step without gradients is one call of the engine")
    fused = call.cell.name == "lstm" and not {"packed", "projection"} & {*call.options}
    if not fused or call.dtype == torch.float64:
        return Choice("cpu", "torch has no fused kernel for this call on the CPU")
    if call.dtype == torch.bfloat16 and refusals.lacks_bfloat16_unit():
        return Choice("cpu", "torch's kernel needs a unit for products of bfloat16, which this processor lacks")
    return Choice("torch", "no table of measured seconds covers the call")
