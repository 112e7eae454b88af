"""Prepared calls with gradients: one autograd node for a whole stack, and one call of its engine for each pass."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..backends.engine import PreparingEngine
from ..request import context, precision
from ..request.recurrence import Recurrence
from ..request.streams import names
from . import execute
from .execute import Like, as_left
from .signature import guard

SMALL = 1 << 16
"""Bytes. CPU tensors smaller than this are kept for reuse, as zeros or as models for ``torch.empty_like``."""


class AutogradCall:
    """A prepared call with gradients of a stack: an engine's ``Training``, and the tensors that autograd needs besides.

    Args:
        engine: the engine, whose ``Training`` runs both passes.
        stack: the layers from the lowest to the highest, each with its input. Only shapes and dtypes count.
        wanted: records shaped as ``stack``, with bools in the place of tensors: whether a gradient is wanted.
        batch_first: whether the layout of the input and of its gradient is (B, T, features). The output's is (T, B, ·).
        zeros: whether calls are given no states.
        empty_output, empty_final: make the results. No ``empty_output`` if the output is the first final state.
    """

    call: Any
    in_place: bool
    empty_output: Callable[[], Tensor] | None
    empty_final: Sequence[Callable[[], Tensor]]
    states: int
    weights: int

    def __init__(
        self,
        engine: PreparingEngine,
        stack: Sequence[Recurrence],
        wanted: Sequence[Recurrence[bool]],
        batch_first: bool,
        zeros: bool,
        empty_output: Callable[[], Tensor] | None,
        empty_final: Sequence[Callable[[], Tensor]],
    ) -> None:
        self.call = engine.Training(stack, wanted, batch_first, zeros, empty_output is not None)
        self.in_place = self.call.in_place
        self.empty_output, self.empty_final = empty_output, empty_final
        self.states, self._batch_first = len(empty_final), batch_first
        self._names = names(stack[0].cell)
        # A prepared call must not keep the caller's tensors alive.
        flat = [q.replaced([t.to("meta") for t in q.differentiable()]) for q in stack]
        self._stack = flat
        self._likes: Sequence[Like | None] = ()
        # Checks that saved tensors and gradients are as kernels read them. The key: which of these are not None.
        self._guards: dict[tuple[bool, ...], Any] = {}
        weights = [want for q in wanted for w in q.weights for want in w.present()]
        self._wanted, self.weights = (wanted[0].input, *wanted[0].states, *weights), len(weights)
        self._empty: Sequence[Callable[[], Tensor] | None] = ()  # makers of the wanted gradients
        final = [empty() for empty in empty_final]
        output = empty_output() if empty_output else final[0]
        self._given = Like.of(output), *map(Like.of, final)
        # None on a GPU, where a captured graph might read the zeros after they were freed.
        self._zeros = [_kept_zeros(tensor) for tensor in (output, *final)]

    def __call__(
        self, input: Tensor, states: Sequence[Tensor], streams: Sequence[Tensor], weights: Sequence[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """Output and final states.

        Empty ``states`` stand for zeros; ``weights`` holds the weights of all layers. No transform or trace may be
        active, no tensor may be wrapped, and no stream may require a gradient.
        """
        results = _apply(self, input, *streams, *(states or [None] * self.states), *weights)
        if self.empty_output is None:
            return results[0], list(results)
        output, *final = results
        return output.transpose(0, 1) if self._batch_first else output, final

    def remember(self, tensors: Sequence[Any]) -> None:
        """Keep the shapes and dtypes of the tensors saved for backward. They are the same in all calls."""
        if self._likes:
            return
        input, *others = tensors[:-2]
        _, states, weights = self.parts(others)
        differentiable = input, *states, *weights
        pairs = zip(differentiable, self._wanted, strict=True)
        # Not from the engine's pool of memory: gradients become ``.grad``, live long, and may be resized.
        self._empty = [_maker(t) if want else None for t, want in pairs]
        self._likes = [None if tensor is None else Like.of(tensor) for tensor in tensors]

    def are_as_before(self, saved: Sequence[Tensor | None], gradients: Sequence[Tensor | None]) -> bool:
        """Whether all tensors match the tensors of an earlier backward that kernels could read."""
        every = *saved, *gradients
        check = self._guards.get(tuple([tensor is not None for tensor in every]))
        return check is not None and check.check(*[tensor for tensor in every if tensor is not None])

    def as_forward_left(self, saved: Sequence[Tensor | None]) -> list[Tensor | None]:
        """The saved tensors in forward's dtypes and layouts, which saved-tensor hooks may have changed."""
        pairs = zip(saved, self._likes, strict=True)
        return [t if t is None or like is None else as_left(t, like) for t, like in pairs]

    def as_read(
        self, saved: Sequence[Tensor | None], gradients: Sequence[Tensor | None]
    ) -> tuple[Sequence[Tensor | None], Sequence[Tensor | None]]:
        """The saved tensors, and the gradients of output and final states, in the form that kernels read."""
        left = self.as_forward_left(saved)
        read = [g if g is None else as_left(g, like) for g, like in zip(gradients, self._given, strict=True)]
        every = *saved, *gradients
        there = [tensor for tensor in every if tensor is not None]
        plain = all(map(operator.is_, (*left, *read), every)) and len({*map(id, there)}) == len(there)
        if plain and not context.is_observed(there):
            self._guards[tuple(tensor is not None for tensor in every)] = guard(there)
        return left, read

    def parts(self, others: Sequence[Any]) -> tuple[Sequence[Tensor], list[Tensor], Sequence[Tensor]]:
        """Streams, initial states and weights, from the arguments after the input. Zeros replace a state of None."""
        first, last = len(self._names), len(self._names) + self.states
        states = [self.zeros(k) if state is None else state for k, state in enumerate(others[first:last], start=1)]
        return others[:first], states, others[last:]

    def zeros(self, k: int) -> Tensor:
        """Zeros shaped as the output (``k`` = 0), or as state number ``k``, counted from 1."""
        kept, like = self._zeros[k], self._given[k]
        return torch.zeros(like.shape, dtype=like.dtype, device=like.device) if kept is None else kept

    def gradients(
        self,
        input: Tensor,
        streams: Sequence[Tensor],
        states: Sequence[Tensor],
        weights: Sequence[Tensor],
        kept: Sequence[Tensor],
        gradients: Sequence[Tensor | None],
        as_made: bool,
    ) -> list[Tensor | None]:
        """The wanted gradients of input, states and weights, by the engine.

        Args:
            kept: the output, or None if backward does not read it, and the result of the engine's forward.
            gradients: of the output and the final states. None stands for zeros.
            as_made: whether the output is still at the address where forward made it.
        """
        return self.call.backward((input, *streams, *states, *kept, *gradients, *weights), self._empty, as_made)

    def differentiable_gradients(
        self,
        input: Tensor,
        streams: Sequence[Tensor],
        states: Sequence[Tensor],
        weights: Sequence[Tensor],
        gradients: Sequence[Tensor],
    ) -> Sequence[Tensor]:
        """The same gradients by the reference, if they are differentiated again or a transform or trace is active."""
        with precision.without_autocast(input.device):
            pull = torch.func.vjp(partial(self._by_reference, streams), input, *states, *weights)[1]
            return pull((gradients[0], *gradients[1:]))

    def _by_reference(self, streams: Sequence[Tensor], input: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        states, rest = others[: self.states], iter(others[self.states :])
        first = self._stack[0]
        read = {name: self._as_read(name, stream) for name, stream in zip(self._names, streams, strict=True)}
        x = input.transpose(0, 1) if self._batch_first else input.view(first.outside.shape)
        finals, begin = [], 0
        for q in self._stack:
            own = slice(begin, begin + len(q.weights))
            begin = own.stop
            weights = [w.replaced([next(rest) for _ in w.present()]) for w in q.weights]
            given = [state.view(-1, *like.shape[1:])[own] for state, like in zip(states, q.states, strict=True)]
            q = q._replace(input=x, states=given, weights=weights, streams=read)
            x, *final = execute.by_reference(q, *q.differentiable())
            finals.append(final)
        final = [torch.cat(parts) for parts in zip(*finals, strict=True)]
        return tuple(result.view(like.shape) for result, like in zip((x, *final), self._given, strict=True))

    def _as_read(self, name: str, stream: Tensor) -> Tensor:
        """A stream in the layout that the reference reads, (D, T, B, ·)."""
        like = self._stack[0].streams[name]
        if self._batch_first and self._stack[0].cell.streams[name].startswith("TB"):
            stream = stream.transpose(0, 1)
        return stream.reshape(like.shape[1:]).expand(like.shape)


def _maker(like: Tensor) -> Callable[[], Tensor]:
    if like.nbytes < SMALL and like.device.type == "cpu":
        return partial(torch.empty_like, torch.empty_like(like))
    return partial(torch.empty, like.shape, dtype=like.dtype, device=like.device)


def _kept_zeros(like: Tensor) -> Tensor | None:
    return torch.zeros_like(like) if like.nbytes < SMALL and like.device.type == "cpu" else None


class _Stack(torch.autograd.Function):
    """The autograd node of a stack.

    Autograd saves all tensors that backward needs, so that hooks see them and changes in place are detected.
    """

    @staticmethod
    def forward(ctx: Any, training: AutogradCall, input: Tensor, *others: Tensor | None) -> tuple[Tensor, ...]:
        final = [empty() for empty in training.empty_final]
        output = training.empty_output() if training.empty_output else final[0]
        first = len(others) - training.weights
        kept = training.call.forward(input, *others[:first], *final, output, *others[first:])
        ctx.set_materialize_grads(False)
        ctx.training, ctx.address = training, output.data_ptr()
        # The output of a cell's step is its state. Callers may change it in place, so backward does not read it.
        tensors = input, *others, output if training.empty_output else None, kept
        training.remember(tensors)
        ctx.save_for_backward(*tensors)
        return tuple(final) if training.empty_output is None else (output, *final)

    @staticmethod
    def backward(ctx: Any, *given: Tensor | None) -> tuple[Tensor | None, ...]:
        training = ctx.training
        saved = execute.saved_tensors(ctx)
        grad_output, *grad_final = (None, *given) if training.empty_output is None else given
        gradients = [training.zeros(0) if grad_output is None else grad_output, *grad_final]
        disturbed = torch.compiler.is_compiling() or torch.is_grad_enabled() or context.is_watched()
        if disturbed or not training.are_as_before(saved, gradients):
            there = [grad for grad in gradients if grad is not None]
            disturbed = disturbed or context.is_observed(there) or context.are_batched(there)
            if disturbed:
                gradients = [training.zeros(k) if grad is None else grad for k, grad in enumerate(gradients)]
                saved = training.as_forward_left(saved)
            else:
                saved, gradients = training.as_read(saved, gradients)
        input, *others, output, kept = saved
        parts = training.parts(others)
        if disturbed:
            of_input, *of_others = training.differentiable_gradients(input, *parts, gradients)
        else:
            as_made = output is not None and output.data_ptr() == ctx.address
            of_input, *of_others = training.gradients(input, *parts, (output, kept), gradients, as_made)
        of_others = [None] * len(parts[0]) + of_others
        return None, of_input, *[g if t is not None else None for g, t in zip(of_others, others, strict=True)]


# A C++ method, which torch's stubs lack.
_apply = super(torch.autograd.Function, _Stack).apply  # pyright: ignore[reportAttributeAccessIssue]
"""``apply`` of the C++ base class. It skips ``torch.autograd.Function``'s handling of transforms and wrapped tensors,
which takes as long as a small cell."""
