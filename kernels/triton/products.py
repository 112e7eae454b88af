"""The matrix products between the kernels, by torch: cuBLAS or rocBLAS, under torch's own switches."""

import torch
from torch import Tensor


def multiply(a: Tensor, b: Tensor, out: Tensor) -> Tensor:
    """out = a b: (M, K), (K, N), (M, N), summed in the dtype of ``out``, which may be the wider."""
    wider = {} if a.dtype == out.dtype else {"out_dtype": out.dtype}
    if wider and not a.is_cuda:  # torch has these for GPUs only; on the CPU only the interpreter's tests come here
        a, b, wider = a.to(out.dtype), b.to(out.dtype), {}
    return torch.mm(a, b, **wider, out=out)
