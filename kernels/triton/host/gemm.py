"""The matrix products between the kernels, by torch: cuBLAS or rocBLAS."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import interpreted
from . import precision

IN_FLOAT64 = interpreted()
"""Whether products are made in float64 and rounded once. The interpreter's tests judge the kernels, not the CPU's GEMM
library. Besides, every way to make a product then gives the same bits."""


def multiply(a: Tensor, b: Tensor, out: Tensor) -> Tensor:
    """out = a b: (M, K), (K, N), (M, N), or a batch of each. Sums are in the dtype of ``out``, which may be wider."""
    if IN_FLOAT64:
        return out.copy_(a.double() @ b.double())
    wider = {} if a.dtype == out.dtype else {"out_dtype": out.dtype}
    return (torch.mm if a.dim() == 2 else torch.bmm)(a, b, **wider, out=out)


def product(a: Tensor, b: Tensor) -> Tensor:
    """a b in their dtype, with axes as in `torch.matmul`."""
    return torch.matmul(a.double(), b.double()).to(a.dtype) if IN_FLOAT64 else torch.matmul(a, b)


def linear(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`projected` in the precision that is set for recurrent layers, cuDNN's; not differentiable."""
    with precision.obeyed_by_torch(precision.mode(input.dtype)):
        # For an input that is not contiguous, torch would add the bias to the product in a pass of its own.
        return projected(input.contiguous(), weight, bias)


def projected(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`torch.nn.functional.linear` in the precision that is set."""
    if not IN_FLOAT64:
        return torch.nn.functional.linear(input, weight, bias)
    wide = (None if tensor is None else tensor.double() for tensor in (input, weight, bias))
    return torch.nn.functional.linear(*wide).to(input.dtype)


def sum_of_rows(rows: Tensor, dtype: torch.dtype) -> Tensor:
    """(…, N) → (N,), summed in a dtype that may be wider. For a wider dtype torch's own sum would copy all rows
    first."""
    rows = rows.flatten(0, -2)
    if rows.dtype == dtype:
        return rows.sum(0)
    return multiply(rows.new_ones(1, len(rows)), rows, rows.new_empty(1, rows.shape[1], dtype=dtype))[0]


def over_time(a: Tensor, b: Tensor) -> Tensor:
    """Σ aᵀ b over times and sequences: (T, B, M), (T, B, N) → (M, N), in their dtype. Half precision is summed in
    float32. The axis of time may be missing."""
    axes = [*range(a.dim() - 1)]
    if IN_FLOAT64:
        return torch.tensordot(a.double(), b.double(), (axes, axes)).to(a.dtype)
    if a.dtype not in precision.HALVES:
        return torch.tensordot(a, b, (axes, axes))
    with precision.summed_in_float32(a):
        return torch.tensordot(a, b, (axes, axes))


def sum_of_products(pairs: Sequence[tuple[Tensor, Tensor]], dtype: torch.dtype) -> Tensor:
    """Σ aᵀ b over the pairs (…, M), (…, N) and their leading dimensions → (M, N)."""
    products = []
    for a, b in pairs:
        out = a.new_empty(a.shape[-1], b.shape[-1], dtype=dtype)
        products.append(multiply(a.flatten(0, -2).T, b.flatten(0, -2), out))
    return sum(products[1:], products[0])
