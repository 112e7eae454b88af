"""The matrix products between the kernels, by torch: cuBLAS or rocBLAS."""

from typing import Any

import torch
from torch import Tensor

from . import precision


def multiply(a: Tensor, b: Tensor, out: Tensor) -> Tensor:
    """out = a b: (M, K), (K, N), (M, N), or several of each, summed in the dtype of ``out``, which may be the wider."""
    if not a.is_cuda:
        # Only the interpreter's tests come here. It is the kernels they judge, not the CPU's library.
        return out.copy_(a.double() @ b.double())
    wider = {} if a.dtype == out.dtype else {"out_dtype": out.dtype}
    return (torch.mm if a.dim() == 2 else torch.bmm)(a, b, **wider, out=out)


class _Linear(torch.autograd.Function):
    """`torch.nn.functional.linear` in the precision of recurrent layers, forward and backward."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(input, weight)
        with precision.obeyed_by_torch(precision.mode(input.dtype)):
            return torch.nn.functional.linear(input, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        input, weight = ctx.saved_tensors
        wanted, rows = ctx.needs_input_grad, grad.flatten(0, -2)
        with precision.obeyed_by_torch(precision.mode(input.dtype)):
            grad_input = (rows @ weight).view(input.shape) if wanted[0] else None
            grad_weight = rows.T @ input.flatten(0, -2) if wanted[1] else None
        return grad_input, grad_weight, rows.sum(0) if wanted[2] else None


def linear(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The input's projection: `torch.nn.functional.linear` in the precision of recurrent layers, which is cuDNN's."""
    if input.dtype != torch.float32:
        return torch.nn.functional.linear(input, weight, bias)
    return _Linear.apply(input, weight, bias)
