"""A layer's weights in one chunk of memory, as cuDNN needs them; weights in any other layout are copied at every call.

The order and the distances of the weights are found by torch's own function, which torch.nn's layers call too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeGuard

import torch
from torch import Tensor
from torch._C import _len_torch_dispatch_stack
from torch._C._functorch import peek_interpreter_stack
from torch.backends.cudnn import rnn

DEVICE = "cuda"
"""The type of the devices that cuDNN runs on."""


class Form(NamedTuple):
    """The properties of a layer on which a chunk's layout depends, besides dtype and device.

    The names are the arguments of `RecurrentLayer`.
    """

    mode: str
    input_size: int
    hidden_size: int
    proj_size: int
    num_layers: int
    bias: bool
    bidirectional: bool


class _Layout(NamedTuple):
    offsets: Sequence[int]
    """The offset of each weight from the chunk's beginning, in bytes."""
    size: int


_layouts: dict[tuple[Any, ...], _Layout] = {}
"""The layouts of the chunks that this process has made, by form, dtype and device."""


def on_cuda_with_cudnn(tensors: Sequence[Tensor]) -> bool:
    """Whether cuDNN can use such weights: all are on one GPU, and have one dtype that cuDNN supports."""
    first = tensors[0]
    alike = first.is_cuda and all(t.dtype == first.dtype and t.device == first.device for t in tensors)
    # torch exports this function without a stub.
    flattens = torch._use_cudnn_rnn_flatten_weight  # pyright: ignore[reportPrivateImportUsage]
    return alike and torch.backends.cudnn.is_acceptable(first) and flattens()


def flatten(tensors: Sequence[Tensor | None], form: Form) -> None:
    """Move a layer's weights into one chunk of memory. The tensors stay the same objects and keep their values.

    Nothing happens if cuDNN cannot use the weights or they are in one chunk already. Nothing happens either if a weight
    is missing, is a tensor subclass, was made in inference mode, or shares its memory with another weight.

    Args:
        tensors: the weights, in the order of registration.
        form: the layer's form.
    """
    if not _are_plain(tensors) or not on_cuda_with_cudnn(tensors) or _is_whole(tensors, form):
        return
    if any(t.is_inference() for t in tensors) or len({t.data_ptr() for t in tensors}) < len(tensors):
        return
    with torch.inference_mode(False):
        copies = _copies(tensors, form)
    if _is_whole(tensors, form):
        return  # the first chunk of a form has to be made before a layout can be compared with it
    for tensor, copy in zip(tensors, copies, strict=True):
        tensor.data = copy


def together(tensors: Sequence[Tensor], form: Form) -> Sequence[Tensor]:
    """Weights for one call of torch's operator: the given tensors, or copies in one chunk if the operator needs that.

    The operator would make copies itself, and would warn at each call. Gradients of the copies flow to the weights.
    Under autocast, in transforms, in traces and under dispatch modes the given tensors are returned.
    """
    if torch._C._is_any_autocast_enabled() or _len_torch_dispatch_stack() or peek_interpreter_stack() is not None:
        return tensors
    if _is_whole(tensors, form) or not _are_plain(tensors) or not on_cuda_with_cudnn(tensors):
        return tensors
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return _Copies.apply(form, *tensors)
    return _copies(tensors, form)


def _are_plain(tensors: Sequence[Tensor | None]) -> TypeGuard[Sequence[Tensor]]:
    return all(type(tensor) in (Tensor, torch.nn.Parameter) for tensor in tensors)


def _is_whole(tensors: Sequence[Tensor], form: Form) -> bool:
    """Whether weights are laid out as torch's operator checks it for cuDNN, from the beginning of one storage on."""
    first = tensors[0]
    layout = _layouts.get((form, first.dtype, first.device))
    if layout is None:
        return False
    storage = first.untyped_storage()
    begin = storage.data_ptr()
    if storage.nbytes() < layout.size or not tensors[-1].is_contiguous():
        return False
    return [tensor.data_ptr() - begin for tensor in tensors] == layout.offsets


@torch.no_grad()
def _copies(tensors: Sequence[Tensor], form: Form) -> list[Tensor]:
    """Copies of the weights in a new chunk, whose layout is recorded."""
    # torch's function moves its arguments into the chunk. These new tensors share the weights' memory, so the weights
    # themselves do not move. torch's stubs do not say that `set_` takes a tensor.
    copies = [tensor.new_empty(0).set_(tensor.detach()) for tensor in tensors]  # pyright: ignore[reportArgumentType]
    first, directions = copies[0], 2 if form.bidirectional else 1
    with torch.cuda.device_of(first):
        torch._cudnn_rnn_flatten_weight(  # pyright: ignore[reportPrivateImportUsage]  # has no stub either
            copies,
            len(copies) // (form.num_layers * directions),
            form.input_size,
            rnn.get_cudnn_mode(form.mode),
            form.hidden_size,
            form.proj_size,
            form.num_layers,
            False,  # batch_first, which has no effect on weights
            form.bidirectional,
        )
    storage = first.untyped_storage()
    offsets = [copy.data_ptr() - storage.data_ptr() for copy in copies]
    _layouts[form, first.dtype, first.device] = _Layout(offsets, storage.nbytes())
    return copies


class _Copies(torch.autograd.Function):
    """Copies of the weights whose gradients flow to the weights."""

    @staticmethod
    def forward(ctx: Any, form: Form, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(_copies(tensors, form))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return None, *gradients
