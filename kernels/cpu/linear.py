"""Products over whole sequences: the input's projection and the weights' gradients."""

import torch
from torch import Tensor

from . import _engine
from .library import pooled, precision, precision_handle, reads, threads


def gemm(left: Tensor, right: Tensor, bias: Tensor | None = None, out: Tensor | None = None) -> Tensor:
    """left (M, K) · right (K, N) + bias (N,), of a dtype that `reads` accepts. Both matrices are contiguous along one
    of their axes.

    The order of sums, and so the bits, is the same for any number of threads.
    """
    if out is None:
        out = pooled((left.shape[0], right.shape[1]), left.dtype)
    fields = (*out.shape, left.shape[1], threads(), left.data_ptr(), *left.stride())
    fields += (right.data_ptr(), *right.stride(), 0 if bias is None else bias.data_ptr(), out.data_ptr())
    _engine.gemm(precision_handle(precision(left.dtype)), *fields)
    return out


def linear(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`torch.nn.functional.linear`, by the engine's own product where it has one for the dtype."""
    if not reads(input.dtype) or not input.numel():
        return torch.nn.functional.linear(input, weight, bias)
    rows = input.flatten(0, -2).contiguous()
    out = gemm(rows, weight.contiguous().T, None if bias is None else bias.contiguous())
    return out.view(*input.shape[:-1], -1)


def linear_gradients(
    grad: Tensor, input: Tensor, weight: Tensor, wanted: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of the input and of the weight; None where one is not wanted."""
    product = gemm if reads(input.dtype) and input.numel() else torch.matmul
    rows = grad.flatten(0, -2).contiguous()
    grad_input = product(rows, weight.contiguous()).view(input.shape) if wanted[0] else None
    return grad_input, product(rows.T, input.flatten(0, -2).contiguous()) if wanted[1] else None
