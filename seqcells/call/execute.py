"""Runs a recurrence by the engine of a backend, an `Engine`. Engines read raw addresses, so tensors are checked here,
once."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear

from ..backends import engine_of, reference
from ..request import check_recurrence, precision
from ..request.recurrence import Backward, Recurrence


def forward(q: Recurrence, backend: str, save: bool) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Output, the other results, and the tensors that `backward` needs besides. Without ``save`` the last is empty."""
    check_recurrence.check(q)
    if backend == "reference":
        output, others = reference.layer(q)
        return output, list(others), []
    output, others, saved = engine_of(backend).forward(q, save)
    return output, list(others), list(saved)


def backward(q: Recurrence, backend: str, given: Backward) -> Sequence[Tensor | None]:
    """Gradients of ``q.differentiable()``. An engine may return None for a gradient that is not wanted."""
    with precision.without_autocast(given.output.device):
        if backend != "reference":
            return engine_of(backend).backward(q, given)
        with _autograd_inside_operator():
            leaves = [tensor.detach().requires_grad_() for tensor in q.differentiable()]
            results = zip(by_reference(q, *leaves), (given.grad_output, *given.grad_final), strict=True)
            outputs, seeds = zip(*((v, seed) for v, seed in results if v.requires_grad), strict=True)
            gradients = torch.autograd.grad(outputs, leaves, seeds, materialize_grads=True)
    return [g.contiguous() for g in gradients]


def saved_like(q: Recurrence, backend: str) -> list[Tensor]:
    """Empty tensors of the shapes that `forward` saves, on the device of ``q``."""
    return [] if backend == "reference" else list(engine_of(backend).saved_like(q))


def by_reference(q: Recurrence, *differentiable: Tensor) -> tuple[Tensor, ...]:
    """The results of the reference, as a function of the differentiable tensors: output, final states, kept values."""
    output, others = reference.layer(q.replaced(differentiable))
    return (output, *others)


def differentiable_gradients(q: Recurrence, grad_output: Tensor, grad_final: Sequence[Tensor]) -> Sequence[Tensor]:
    """Gradients by the reference, for a caller who differentiates them again, any number of times."""
    with precision.without_autocast(q.outside.device):
        pull = torch.func.vjp(partial(by_reference, q), *q.differentiable())[1]
        return pull((grad_output, *grad_final))


def gradients_given(
    q: Recurrence, output: Tensor, grad_output: Tensor | None, grad_final: Sequence[Tensor | None]
) -> tuple[Tensor, list[Tensor]]:
    """Gradients of the output and of the other results, with zeros for results that the loss does not depend on."""
    grad_output = torch.zeros_like(output) if grad_output is None else grad_output
    likes = [*q.states, *(q.shapes()[1 + len(q.states) :] if q.kept else ())]
    made = [g if g is not None else _zeros(like, output) for like, g in zip(likes, grad_final, strict=True)]
    return grad_output, made


def _zeros(like: Tensor | Sequence[int], output: Tensor) -> Tensor:
    return torch.zeros_like(like) if isinstance(like, Tensor) else output.new_zeros(like)


def projected(q: Recurrence) -> Recurrence:
    """The recurrence with ``gates_x``, the projected input, in the place of the input."""
    if q.input is None:
        return q
    weight, bias = q.input_weights
    return q.projected(q.input[..., :0] if weight is None else linear(q.input, weight, bias))


def saved_tensors(ctx: Any) -> tuple[Any, ...]:
    """The saved tensors of an autograd node; None stands for an argument that was None.

    Raises:
        RuntimeError: a saved tensor was changed in place since forward. The message is autograd's, with advice.
    """
    try:
        return ctx.saved_tensors
    except RuntimeError as error:
        if "modified by an inplace operation" not in str(error):
            raise
        advice = "seqcells keeps a layer's output for backward: before changing it in place take a copy, output.clone()"
        raise RuntimeError(f"{error} ({advice})") from None


class Like(NamedTuple):
    """The shape, dtype and device that `as_left` requires of a tensor."""

    shape: torch.Size
    dtype: torch.dtype
    device: torch.device

    @staticmethod
    def of(tensor: Tensor, device: torch.device | None = None) -> "Like":
        return Like(tensor.shape, tensor.dtype, tensor.device if device is None else device)


def as_left(tensor: Tensor, like: Like) -> Tensor:
    """A tensor in the dtype and the contiguous layout of forward. Saved-tensor hooks may have changed both.

    Raises:
        RuntimeError: the tensor has another size, another device, or another dtype that is not floating-point.
    """
    if tensor.shape != like.shape or tensor.device != like.device:
        expected, found = f"{tuple(like.shape)} on {like.device}", f"{list(tensor.shape)} on {tensor.device}"
        raise RuntimeError(f"Expected what was saved or a gradient of size {expected}, got {found}")
    if tensor.dtype == like.dtype:
        # Some tensors call themselves contiguous, but their memory is missing (zero tensors) or not negated.
        whole = tensor.is_contiguous() and not tensor.is_neg() and not tensor._is_zerotensor()
        return tensor if whole else tensor.clone(memory_format=torch.contiguous_format).resolve_neg()
    if not tensor.dtype.is_floating_point:
        raise RuntimeError(f"Expected what was saved or a gradient of {like.dtype}, got {tensor.dtype}")
    return tensor.resolve_neg().to(like.dtype).contiguous()


@contextmanager
def _autograd_inside_operator() -> Iterator[None]:
    """Enables autograd inside an operator, whose body may run below autograd's dispatch keys.

    Under a TorchDispatchMode the body does run there.
    """
    excluded = torch._C._dispatch_tls_local_exclude_set()
    for key in ("AutogradFunctionality", "AutogradOther", "ADInplaceOrView"):
        excluded = excluded.remove(getattr(torch._C.DispatchKey, key))
    included = torch._C._dispatch_tls_local_include_set()
    with torch._C._ForceDispatchKeyGuard(included, excluded), torch.enable_grad():
        yield
