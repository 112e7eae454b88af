"""Runs a layer by a backend: by the torch operators under a trace or transform, else by a faster equivalent."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch._C._autograd import _profiler_enabled
from torch.autograd.profiler import record_function
from torch.jit._trace import is_tracing

from ..backends import reference, stacking_engine
from ..request import check_recurrence, checks, context
from ..request.call import Call, Choice
from ..request.recurrence import Backward, Recurrence
from ..request.weights import Weights
from ..system.settings import current_settings, holding
from . import choose, execute, operators


def layer(q: Recurrence, choice: Choice, asked: str) -> tuple[Tensor, tuple[Tensor, ...]]:
    """All directions of a layer by a backend → output, final states."""
    if not q.outside.is_complex():  # the reference runs complex dtypes, as torch's own operators do
        checks.dtype(q.outside.dtype)
    if not torch.compiler.is_compiling() and _profiler_enabled():
        with record_function("seqcells::layer"):
            return _run(q, choice, asked)
    return _run(q, choice, asked)


def _run(q: Recurrence, choice: Choice, asked: str) -> tuple[Tensor, tuple[Tensor, ...]]:
    if choice.backend == "reference" and not torch.compiler.is_compiling():
        if not (is_tracing() or q.outside.is_complex()):  # under torch.jit.trace sizes are tensors
            check_recurrence.check(q)
        return reference.layer(q)
    return recurrence(q, choice.backend, asked)


def layers_at_once(choice: Choice, call: Call, tensors: Sequence[Tensor], weights: Sequence[Weights]) -> int:
    """How many layers the engine runs together. 1 if it never runs several, or under a trace or transform."""
    if call.layers == 1 or torch.compiler.is_compiling():
        return 1
    engine = stacking_engine(choice.backend)
    if engine is None:
        return 1
    tensors = [*tensors, *(p for w in weights for p in w.present())]
    alike = len({t.dtype for t in tensors}) == len({len(w.present()) for w in weights}) == 1
    if not alike or context.is_observed(tensors):
        return 1
    gradients = context.is_differentiated(tensors)
    return engine.at_once(call._replace(dtype=tensors[0].dtype), gradients)


def recurrence(q: Recurrence, backend: str, asked: str | None = None) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Output and the other results of a layer by ``backend``.

    Graphs hold the backend that was ``asked`` for. Default: ``backend``
    """
    if torch.compiler.is_compiling() or context.is_observed(q.differentiable()):
        return operators.recurrence(q, asked or backend)
    if context.is_differentiated(q.differentiable()):
        output, *others = _Eager.apply(q, backend, *q.differentiable())
    else:
        output, others, _ = execute.forward(q, backend, save=False)
    return output, tuple(others)


class _Eager(torch.autograd.Function):
    """The same forward and backward as the torch operator, for eager calls.

    A call of the operator from Python costs a quarter of a millisecond, more than a short sequence takes.
    """

    @staticmethod
    def forward(ctx: Any, q: Recurrence, backend: str, *differentiable: Tensor) -> tuple[Tensor, ...]:
        output, others, saved = execute.forward(q, backend, save=True)
        ctx.set_materialize_grads(False)
        # ctx.q holds no tensors: autograd saves them, so that hooks see them and changes in place are detected.
        form, ctx.backend, ctx.inputs = q.replaced(range(len(differentiable))), backend, len(differentiable)
        ctx.q, ctx.settings = form._replace(lengths=None, reset=None), current_settings()
        kept = *differentiable, q.lengths, q.reset, output, *saved
        ctx.likes = [None if tensor is None else execute.Like.of(tensor) for tensor in kept]
        ctx.save_for_backward(*kept)
        return (output, *others)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        tensors: list[Any] = [
            tensor if tensor is None else execute.as_left(tensor, like)
            for tensor, like in zip(execute.saved_tensors(ctx), ctx.likes, strict=True)
        ]
        lengths, reset, output, *saved = tensors[ctx.inputs :]
        q = ctx.q.replaced(tensors[: ctx.inputs])._replace(lengths=lengths, reset=reset)
        grad_output, given = execute.gradients_given(q, output, gradients[0], gradients[1:])
        present = [tensor for tensor in tensors if tensor is not None]
        observed = torch.compiler.is_compiling() or context.is_observed([grad_output, *given, *present])
        # No operator exists for a stack, so under a trace or transform its backward is the reference's.
        if torch.is_grad_enabled() or context.are_batched([grad_output, *given]) or (observed and q.stacked):
            found = execute.differentiable_gradients(q, grad_output, given)
        elif observed:
            with holding(ctx.settings):
                found = _gradients_from_input(q, ctx.backend, [output, *saved], [grad_output, *given])
        else:
            wanted = q.replaced(ctx.needs_input_grad[2:])
            with holding(ctx.settings):  # settings are per thread, and autograd may run this in another thread
                found = execute.backward(q, ctx.backend, Backward(output, saved, grad_output, given, wanted))
        return None, None, *found


def _gradients_from_input(q: Recurrence, backend: str, *given: Sequence[Tensor]) -> Sequence[Tensor]:
    """Gradients by the backward operator, for a layer that may hold its input.

    torch operators compute the gradients of the input's projection.
    """
    projected = execute.projected(q)
    asked = "auto" if choose.backend_for(projected, "auto") == backend else backend
    flat = operators.recurrence_backward(projected, asked, *given)
    if q.input is None:
        return flat
    g, (weight, bias) = projected.replaced(flat), q.input_weights
    # `projected` may have added the input as a stream, which is none of the caller's streams.
    of_input = g.streams["input"].sum(0) if "input" in g.streams else torch.zeros_like(q.input)
    g = g._replace(streams={name: g.streams[name] for name in q.streams})
    if weight is None:
        return g._replace(input=of_input).differentiable()
    columns = g.outside.flatten(0, -2).T
    of_weight = (columns @ q.input.flatten(0, -2)).chunk(len(q.weights))
    of_bias = [None] * len(q.weights) if bias is None else columns.sum(1).chunk(len(q.weights))
    weights = [own._replace(ih=ih, bias_ih=b) for own, ih, b in zip(g.weights, of_weight, of_bias, strict=True)]
    return g._replace(input=of_input + g.outside @ weight, weights=weights).differentiable()
