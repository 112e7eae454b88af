"""Parity: every provider's results are compared with a float64 result. A result beyond the tolerance gets no figure.

The error is relative: ‖result − truth‖ / ‖truth‖ over a whole tensor, the worst of the tensors. The float64 result
starts from the provider's own inputs and weights, already rounded to its dtype. So the error is due to the provider's
arithmetic alone.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from seqcells import functional
from seqcells.backends.torch_ops import OPERATORS

from .case import Case

# Arithmetic in the named precision stays within its tolerance, and the next coarser precision exceeds it. For example,
# bfloat16 products in float32 give 1e-3 or worse. TF32 rounds operands to 11 bits, bfloat16 to 8.
TOLERANCE = {"float64": 1e-12, "float32": 2e-5, "tf32": 2e-3, "float16": 5e-3, "bfloat16": 4e-2}

Results = Mapping[str, Tensor]


def truth(case: Case) -> dict[str, Tensor]:
    """The results in float64, from torch.nn. For lengths, and for a cell that torch.nn lacks, they are from seqcells'
    reference."""
    stack = case.stack()
    (given,) = case.inputs(stack[0])
    with torch.enable_grad() if case.suite.gradients else torch.no_grad():
        wide = [each.replaced([w.detach().double().requires_grad_() for w in each.present()]) for each in stack]
        parameters = [parameter for each in wide for parameter in each.present()]
        x = given.x.double().requires_grad_(case.suite.gradients)
        layers, both = case.suite.layers, case.suite.directions == 2
        states = [s.double().expand(len(stack), *s.shape).contiguous() for s in case.zero_states()]
        if case.cell_name in OPERATORS and given.lengths is None:
            hx = tuple(states) if len(states) > 1 else states[0]
            by_torch, _ = OPERATORS[case.cell_name]
            output, *final = by_torch(x, hx, parameters, True, layers, 0.0, True, both, False)
        else:
            lengths = None if given.lengths is None else given.lengths.to(x.device)
            given_as = {"bidirectional": both, "lengths": lengths, "backend": "reference"}
            output, final = functional.layers(case.cell, x, states, wide, **given_as)
        if not case.suite.gradients:
            return forward_results(case, output, final)
        gradients = torch.autograd.grad(output, [x, *parameters], given.grad.double())
        return gradient_results(case, output, gradients)


def forward_results(case: Case, output: Tensor, final: list[Tensor] | tuple[Tensor, ...]) -> dict[str, Tensor]:
    """Name the results as every provider does: the output (T, B, D·H) and the final states (L·D, B, H)."""
    return {"output": output, **dict(zip(case.cell.states, final, strict=False))}


def gradient_results(case: Case, output: Tensor, gradients: list[Tensor] | tuple[Tensor, ...]) -> dict[str, Tensor]:
    """Name the results as every provider does: the output and the gradients of input and weights."""
    return {"output": output.detach(), **dict(zip(("x", *case.parameters()), gradients, strict=True))}


def error(results: Results, expected: Results) -> tuple[float, list[str]]:
    """The worst relative error, and the names of expected results that were not given."""
    unknown = set(results) - set(expected)
    if unknown or "output" not in results:
        raise ValueError(f"results named {', '.join(results)}; expected {', '.join(expected)}")
    worst = 0.0
    for name, result in results.items():
        right = expected[name].double()
        wrong = result.detach().to(right.device).double().reshape(right.shape) - right
        relative = float(wrong.norm() / right.norm().clamp_min(1e-300))
        worst = relative if math.isnan(relative) or relative > worst else worst
    return worst, [name for name in expected if name not in results]


def verdict(case: Case, worst: float) -> str | None:
    """Why there is no figure, or None."""
    limit = TOLERANCE[case.dtype_name]
    if worst <= limit:
        return None
    return f"error {worst:.1e} is beyond {limit:.0e}, the tolerance of {case.dtype_name}"
