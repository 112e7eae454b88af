"""A layer's weights in one chunk of memory, as cuDNN multiplies them: of others it copies all at every call.

In which order it wants them, and how far apart, torch's own function says, which torch.nn's layers call too.
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
"""The type of devices that cuDNN is for."""


class Form(NamedTuple):
    """What a chunk's layout depends on, besides dtype and device; names as `RecurrentLayer` has them."""

    mode: str
    input_size: int
    hidden_size: int
    proj_size: int
    num_layers: int
    bias: bool
    bidirectional: bool


class _Layout(NamedTuple):
    offsets: Sequence[int]
    """Of each weight, in bytes from the chunk's beginning."""
    size: int


_layouts: dict[tuple[Any, ...], _Layout] = {}
"""Those that were made in this process, by form, dtype and device."""


def on_cuda_with_cudnn(tensors: Sequence[Tensor]) -> bool:
    """Whether cuDNN would multiply such weights as they are: on one GPU, of one dtype that it takes."""
    first = tensors[0]
    alike = first.is_cuda and all(t.dtype == first.dtype and t.device == first.device for t in tensors)
    # torch exports it without a stub.
    flattens = torch._use_cudnn_rnn_flatten_weight  # pyright: ignore[reportPrivateImportUsage]
    return alike and torch.backends.cudnn.is_acceptable(first) and flattens()


def flatten(tensors: Sequence[Tensor | None], form: Form) -> None:
    """Let a layer's weights lie in one chunk: the tensors stay, and what is in them.

    Does nothing where cuDNN does not multiply them, where they lie so already, or where one is missing, is none that
    lies in memory, or shares its memory with another.

    Args:
        tensors: the weights, in the order of registration.
        form: the layer's.
    """
    if not _are_plain(tensors) or not on_cuda_with_cudnn(tensors) or _is_whole(tensors, form):
        return
    if any(t.is_inference() for t in tensors) or len({t.data_ptr() for t in tensors}) < len(tensors):
        return
    with torch.inference_mode(False):
        copies = _copies(tensors, form)
    if _is_whole(tensors, form):
        return  # which could not be told before a first chunk of this form was made
    for tensor, copy in zip(tensors, copies, strict=True):
        tensor.data = copy


def together(tensors: Sequence[Tensor], form: Form) -> Sequence[Tensor]:
    """Weights for one call of torch's operator: the same where they lie in one chunk or need not, else copies that do.

    The operator would make copies too, and warn each time. Gradients of the copies flow to the weights. Under autocast,
    in transforms, and where somebody traces or watches, what torch does stays as it is.
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
    """Whether weights lie where cuDNN looks for them, as torch's operator asks: from the beginning of one storage."""
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
    """Of the weights, in a new chunk."""
    # torch's function moves the tensors that it is given. These have the weights' memory, and are nobody's else.
    # torch's stubs do not say that `set_` takes a tensor.
    copies = [tensor.new_empty(0).set_(tensor.detach()) for tensor in tensors]  # pyright: ignore[reportArgumentType]
    first, directions = copies[0], 2 if form.bidirectional else 1
    with torch.cuda.device_of(first):
        torch._cudnn_rnn_flatten_weight(  # pyright: ignore[reportPrivateImportUsage]  # likewise
            copies,
            len(copies) // (form.num_layers * directions),
            form.input_size,
            rnn.get_cudnn_mode(form.mode),
            form.hidden_size,
            form.proj_size,
            form.num_layers,
            False,  # batch first, of which no weight knows
            form.bidirectional,
        )
    storage = first.untyped_storage()
    offsets = [copy.data_ptr() - storage.data_ptr() for copy in copies]
    _layouts[form, first.dtype, first.device] = _Layout(offsets, storage.nbytes())
    return copies


class _Copies(torch.autograd.Function):
    """The same, whose gradients are the weights'."""

    @staticmethod
    def forward(ctx: Any, form: Form, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(_copies(tensors, form))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return None, *gradients
