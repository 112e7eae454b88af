"""Products over whole sequences: the input's projection and the weights' gradients."""

from typing import Any

import torch
from torch import Tensor

from ... import dispatch
from . import _engine
from .library import gemm_handle, pooled, precision, reads


def gemm(left: Tensor, right: Tensor, bias: Tensor | None = None, out: Tensor | None = None) -> Tensor:
    """left (M, K) · right (K, N) + bias (N,), of a dtype that `reads`; the two each contiguous in one of their axes.

    The sums' order, and so the bits, are the same for any number of threads.
    """
    if out is None:
        out = pooled((left.shape[0], right.shape[1]), left.dtype)
    fields = (*out.shape, left.shape[1], torch.get_num_threads(), left.data_ptr(), *left.stride())
    fields += (right.data_ptr(), *right.stride(), 0 if bias is None else bias.data_ptr(), out.data_ptr())
    _engine.gemm(gemm_handle(precision(left.dtype)), *fields)
    return out


class _Linear(torch.autograd.Function):
    """`torch.nn.functional.linear` by `gemm`."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        rows = input.flatten(0, -2).contiguous()
        ctx.save_for_backward(input, weight)
        out = gemm(rows, weight.contiguous().T, None if bias is None else bias.contiguous())
        return out.view(*input.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        input, weight = ctx.saved_tensors
        # A gradient that will itself be differentiated, or is many in one, must be made of what can be.
        by_operators = torch.is_grad_enabled() or torch.compiler.is_compiling() or dispatch.are_batched([grad])
        product = torch.matmul if by_operators or dispatch.is_observed([grad]) else gemm
        rows, flat = grad.reshape(-1, grad.shape[-1]).contiguous(), input.flatten(0, -2).contiguous()
        wanted = ctx.needs_input_grad
        grad_input = product(rows, weight.contiguous()).view(input.shape) if wanted[0] else None
        grad_weight = product(rows.T, flat) if wanted[1] else None
        return grad_input, grad_weight, rows.sum(0) if wanted[2] else None


def linear(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`torch.nn.functional.linear`, by the engine's own product where it has one for the dtype."""
    tensors = [input, weight] if bias is None else [input, weight, bias]
    if not reads(input.dtype) or not input.numel() or dispatch.is_observed(tensors):
        return torch.nn.functional.linear(input, weight, bias)
    return _Linear.apply(input, weight, bias)
