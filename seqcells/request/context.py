"""The context of a call: transforms, traces, dispatch modes, and whether autograd will want gradients."""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch._C import _get_tracing_state, _len_torch_dispatch_stack, _len_torch_function_stack
from torch._C._functorch import is_legacy_batchedtensor, peek_interpreter_stack
from torch.autograd import forward_ad


def in_transform() -> bool:
    """Whether a torch.func transform or forward-mode AD is active."""
    return peek_interpreter_stack() is not None or forward_ad._current_level >= 0


def is_exporting() -> bool:
    """Whether torch.export traces. torch 2.11's own function says so under torch.compile too."""
    return torch.compiler.is_exporting() and getattr(torch.compiler, "_is_exporting_flag", True)


def are_batched(tensors: Iterable[Tensor]) -> bool:
    """Whether tensors hold a batch of gradients, as with ``is_grads_batched`` or vmap. Kernels cannot read these."""
    return in_transform() or any(map(is_legacy_batchedtensor, tensors))


def is_watched() -> bool:
    """Whether a transform, a trace, or a dispatch or function mode sees the operations that run."""
    return bool(in_transform() or _len_torch_dispatch_stack() or _len_torch_function_stack() or _get_tracing_state())


def is_observed(tensors: Iterable[Tensor]) -> bool:
    """Whether the call `is_watched`, or one tensor's memory does not hold its values.

    A FakeTensor and a negated view are such tensors. An observed call must use torch operators instead of kernels.
    """
    return is_watched() or any(type(tensor) not in _PLAIN or tensor.is_neg() for tensor in tensors)


_PLAIN = (Tensor, torch.nn.Parameter)


def is_differentiated(tensors: Iterable[Tensor]) -> bool:
    """Whether autograd will want gradients of results made from these tensors.

    Callers ask before ``autograd.Function.apply``: inside it, the caller's grad mode can no longer be seen.
    """
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
