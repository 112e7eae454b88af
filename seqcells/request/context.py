"""Under what a call runs: transforms, traces, modes that watch, and whether autograd will ask for gradients."""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch._C import _get_tracing_state, _len_torch_dispatch_stack, _len_torch_function_stack
from torch._C._functorch import is_legacy_batchedtensor, peek_interpreter_stack
from torch.autograd import forward_ad


def in_transform() -> bool:
    """Whether inside a torch.func transform or forward-mode AD."""
    return peek_interpreter_stack() is not None or forward_ad._current_level >= 0


def are_batched(tensors: Iterable[Tensor]) -> bool:
    """Whether there are many gradients in one, of ``is_grads_batched``, which no kernels can read."""
    return in_transform() or any(map(is_legacy_batchedtensor, tensors))


def is_watched() -> bool:
    """Whether somebody transforms, traces or watches what runs."""
    return bool(in_transform() or _len_torch_dispatch_stack() or _len_torch_function_stack() or _get_tracing_state())


def is_observed(tensors: Iterable[Tensor]) -> bool:
    """Whether what runs `is_watched`, or one of the tensors is not what lies in memory (a FakeTensor, say, or one whose
    negative lies there): then it must be operators, and nothing below them."""
    return is_watched() or any(type(tensor) not in _PLAIN or tensor.is_neg() for tensor in tensors)


_PLAIN = (Tensor, torch.nn.Parameter)


def is_differentiated(tensors: Iterable[Tensor]) -> bool:
    """Whether autograd will ask for gradients of what is made of them: inside a Function it cannot be seen that grad
    mode is off."""
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
