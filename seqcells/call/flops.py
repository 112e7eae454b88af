"""FLOP formulas of the operators for torch's FlopCounterMode.

They count the products inside the time loop; a multiply-add counts as two.
"""

import math
import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

COUNTER = "torch.utils.flop_counter"
"""torch's FLOP counter. Its import is slow, so this module uses it only if the process has already imported it."""


def tell() -> None:
    """Register the formulas with torch's registry and all active counters, if torch's FLOP counter is imported."""
    if COUNTER not in sys.modules:
        return
    # A counter copies the registry when it is created. Counters created earlier need the formulas in their copy.
    counters = (getattr(mode, "counter", None) for mode in _get_current_dispatch_mode_stack())
    registries = [
        sys.modules[COUNTER].flop_registry,
        *(getattr(counter, "flop_registry", None) for counter in counters),
    ]
    operators = torch.ops.seqcells
    for registry in registries:
        if registry is not None and operators.recurrence not in registry:
            registry[operators.recurrence] = registry[operators.recurrence_forward] = _forward
            registry[operators.recurrence_backward] = _backward


def _forward(cell: str, program: str, tensors: Sequence[torch.Tensor], names: str, *rest: Any, **more: Any) -> int:
    named = dict(zip(names.split(), tensors, strict=True))
    steps, batch, _ = named["gates_x"].shape
    weights = [tensor for name, tensor in named.items() if name.startswith(("weight_hh_", "weight_hr_"))]
    return 2 * steps * batch * sum(math.prod(weight.shape) for weight in weights)


def _backward(*args: Any, **kwargs: Any) -> int:
    """Twice forward's count: a product has two factors, and the gradient of each factor is one product."""
    return 2 * _forward(*args, **kwargs)
