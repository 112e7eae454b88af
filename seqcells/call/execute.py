"""A recurrence by the engine of a backend. Engines go by addresses: what they are given is checked here, and once.

An engine is a module with three functions of a `Recurrence`, from its input or from ``gates_x``:

* ``forward(q, save)`` → output, the other results, and what backward needs besides those and ``q``, nothing unless
  ``save``;
* ``backward(q, given)``, a `Backward` → gradients of ``q.differentiable()``, in its order; None will do where it is
  not wanted;
* ``saved_like(q)`` → empty tensors of the shapes that forward saves.

It may have ``at_once(call, gradients)`` besides: how many layers of a stack it takes together, in eager calls alone, as
a `Recurrence` that is ``stacked``.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear

from ..backends import engine_of, reference
from ..request import fits, precision
from ..request.recurrence import Backward, Recurrence


def forward(q: Recurrence, backend: str, save: bool) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Output, the other results, and what `backward` needs besides, nothing unless ``save``."""
    fits.check(q)
    if backend == "reference":
        output, others = reference.layer(q)
        return output, list(others), []
    output, others, saved = engine_of(backend).forward(q, save)
    return output, list(others), list(saved)


def backward(q: Recurrence, backend: str, given: Backward) -> Sequence[Tensor | None]:
    """Gradients of ``q.differentiable()``; of an engine None where one is not wanted."""
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
    """The reference as a function of the differentiable tensors → the results."""
    output, others = reference.layer(q.replaced(differentiable))
    return (output, *others)


def differentiable_gradients(q: Recurrence, grad_output: Tensor, grad_final: Sequence[Tensor]) -> Sequence[Tensor]:
    """A gradient that will itself be differentiated: the reference's, which is so any number of times."""
    with precision.without_autocast(q.outside.device):
        pull = torch.func.vjp(partial(by_reference, q), *q.differentiable())[1]
        return pull((grad_output, *grad_final))


def gradients_given(
    q: Recurrence, output: Tensor, grad_output: Tensor | None, grad_final: Sequence[Tensor | None]
) -> tuple[Tensor, list[Tensor]]:
    """Gradients of the results, zeros for those that nothing was made of."""
    grad_output = torch.zeros_like(output) if grad_output is None else grad_output
    likes = [*q.states, *(q.shapes()[1 + len(q.states) :] if q.kept else ())]
    made = [g if g is not None else _zeros(like, output) for like, g in zip(likes, grad_final, strict=True)]
    return grad_output, made


def _zeros(like: Tensor | Sequence[int], output: Tensor) -> Tensor:
    return torch.zeros_like(like) if isinstance(like, Tensor) else output.new_zeros(like)


def projected(q: Recurrence) -> Recurrence:
    """The same, with ``gates_x`` in the place of the input."""
    if q.input is None:
        return q
    weight, bias = q.input_weights
    return q.projected(q.input[..., :0] if weight is None else linear(q.input, weight, bias))


def saved_tensors(ctx: Any) -> tuple[Any, ...]:
    """What was saved, tensors and None; RuntimeError, in autograd's words and ours, where it has been changed since."""
    try:
        return ctx.saved_tensors
    except RuntimeError as error:
        if "modified by an inplace operation" not in str(error):
            raise
        advice = "seqcells keeps a layer's output for backward: before changing it in place take a copy, output.clone()"
        raise RuntimeError(f"{error} ({advice})") from None


class Like(NamedTuple):
    """What `as_left` holds a tensor to."""

    shape: torch.Size
    dtype: torch.dtype
    device: torch.device

    @staticmethod
    def of(tensor: Tensor, device: torch.device | None = None) -> "Like":
        return Like(tensor.shape, tensor.dtype, tensor.device if device is None else device)


def as_left(tensor: Tensor, like: Like) -> Tensor:
    """A tensor as forward left it. Whoever keeps it until backward may give it back in another layout or dtype.

    Raises:
        RuntimeError: it has another size, lies on another device, or is of no floating-point numbers.
    """
    if tensor.shape != like.shape or tensor.device != like.device:
        expected, found = f"{tuple(like.shape)} on {like.device}", f"{list(tensor.shape)} on {tensor.device}"
        raise RuntimeError(f"Expected what was saved or a gradient of size {expected}, got {found}")
    if tensor.dtype == like.dtype:
        # Some say they are contiguous, and have no memory or another's.
        whole = tensor.is_contiguous() and not tensor.is_neg() and not tensor._is_zerotensor()
        return tensor if whole else tensor.clone(memory_format=torch.contiguous_format).resolve_neg()
    if not tensor.dtype.is_floating_point:
        raise RuntimeError(f"Expected what was saved or a gradient of {like.dtype}, got {tensor.dtype}")
    return tensor.resolve_neg().to(like.dtype).contiguous()


@contextmanager
def _autograd_inside_operator() -> Iterator[None]:
    """Autograd for the body of an operator, which may run below it (under a TorchDispatchMode it does)."""
    excluded = torch._C._dispatch_tls_local_exclude_set()
    for key in ("AutogradFunctionality", "AutogradOther", "ADInplaceOrView"):
        excluded = excluded.remove(getattr(torch._C.DispatchKey, key))
    included = torch._C._dispatch_tls_local_include_set()
    with torch._C._ForceDispatchKeyGuard(included, excluded), torch.enable_grad():
        yield
