"""Inference calls like the one before, which need be neither checked nor chosen for once more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from . import dispatch, functional
from .cells import Cell
from .recurrence import Recurrence
from .weights import Weights

States = Tensor | Sequence[Tensor] | None


class Likeness(NamedTuple):
    """What calls of a module have in common whose checks and choice come out the same.

    Their tensors have the same types, shapes, strides, dtypes and devices, none is transformed or traced in any way,
    and nothing else has changed that a choice depends on. Where the tensors lie, and what is in them, may differ.
    """

    options: tuple[Any, ...]
    names: tuple[str, ...]
    """Of all parameters: pruning leaves another under a new one."""
    guard: Any
    """torch.compile's own check of tensors, in C++."""

    @staticmethod
    def of(module: nn.Module, tensors: Sequence[Tensor], *options: Any) -> Likeness | None:
        """That of a call; None where torch has no such check, and nothing is prepared: it is no public one."""
        try:
            guard = torch._C._dynamo.guards.TensorGuards(*tensors, dynamic_dims_sizes=None, dynamic_dims_strides=None)
        except (AttributeError, TypeError):
            return None
        return Likeness(options, tuple(module._parameters), guard)

    def fits(self, module: nn.Module, tensors: Sequence[Tensor], *options: Any) -> bool:
        return self.options == options and self.names == tuple(module._parameters) and self.guard.check(*tensors)


def parameters(module: nn.Module) -> list[Tensor]:
    """Its own, in the order of registration."""
    return [parameter for parameter in module._parameters.values() if parameter is not None]


class _Plan(NamedTuple):
    """How to make calls like one. Never changed, only replaced as a whole: threads may call a module at once."""

    like: Likeness
    call: Any
    """The engine's ``Inference``."""
    empty_final: Sequence[Callable[[], Tensor]]
    empty_outputs: Sequence[Callable[[], Tensor]]
    """Of each layer; none where the output is the first final state."""


class Prepared:
    """The last inference call of a module: what was checked and chosen for it holds for every call like it."""

    def __init__(self) -> None:
        self._plan: _Plan | None = None
        self._seen: Likeness | None = None
        self._in_vain: Likeness | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        # What is prepared is for this process and these parameters: copies of the module begin anew.
        return Prepared, ()

    def run(self, module: nn.Module, input: Tensor, hx: States) -> tuple[Tensor, Sequence[Tensor]] | None:
        """Output and final states, shaped as they were in the last call; None where this one is not like it."""
        if not _undisturbed():
            return None
        plan = self._plan
        if plan is None:
            return None
        states, weights = _states(hx), parameters(module)
        if not plan.like.fits(module, (input, *states, *weights), *_options(module, hx)) or not plan.call.holds():
            return None
        final = [empty() for empty in plan.empty_final]
        outputs = [empty() for empty in plan.empty_outputs] or final[:1]
        plan.call(input, *(states or [None] * len(final)), *final, *outputs, *weights)
        return outputs[-1], final

    def second(self, module: nn.Module, input: Tensor, hx: States) -> Likeness | None:
        """What a call has in common with the one before; only then it is worth while to prepare for a third. None where
        there is nothing, it is for others to see, or that was tried in vain."""
        if not _undisturbed() or not (hx is None or isinstance(hx, (Tensor, tuple, list))):
            return None
        tensors, options = (input, *_states(hx), *parameters(module)), _options(module, hx)
        if dispatch.is_observed(tensors) or not all(map(Tensor.is_contiguous, tensors)):
            return None
        seen = self._seen
        if seen is None or not seen.fits(module, tensors, *options):
            self._seen = Likeness.of(module, tensors, *options)
            return None
        return None if seen is self._in_vain else seen

    def remember(
        self,
        like: Likeness,
        module: nn.Module,
        cell: type[Cell],
        choice: dispatch.Choice,
        input: Tensor,
        states: Sequence[Tensor],
        weights: Sequence[Weights],
        layers: int,
        output: Tensor,
        final: Sequence[Tensor],
    ) -> None:
        """Prepare for calls like one that was made.

        Args:
            like: of that call.
            input: (T, B, features), laid out in memory as the call's own.
            states: (L·D, B, ·) each.
            weights: L·D of them.
            layers: L.
            output, final: the call's results, whose shapes and layouts the next ones will have. They may be the same.
        """
        self._plan, self._in_vain = None, like
        engine = functional.inferring_engine(choice, [input, *states], weights)
        contiguous = all(map(Tensor.is_contiguous, (input, output, *final)))
        if not hasattr(engine, "Inference") or not contiguous or not input.numel():
            return
        # Weights that are not the module's parameters, but made of them at each call, will have changed in the next.
        read = [tensor for w in weights for tensor in w.present()]
        if list(map(id, read)) != list(map(id, parameters(module))):
            return
        directions = len(states[0]) // layers
        stack = []
        for first in range(0, len(weights), directions):
            place = slice(first, first + directions)
            # Of states only the shapes: what is prepared should not keep the caller's tensors.
            stack.append(Recurrence(cell, None, [torch.empty_like(state[place]) for state in states], weights[place]))
        call = engine.Inference(stack, input)
        if not call.in_place:
            return
        last = () if output is final[0] else (output,)
        below = [output.new_empty(*input.shape[:2], output.shape[-1])] * (layers - 1)
        empties = [[_empty(engine, like) for like in tensors] for tensors in (final, (*below, *last))]
        self._plan, self._in_vain = _Plan(like, call, *empties), None


def _states(hx: States) -> Sequence[Tensor]:
    return () if hx is None else (hx,) if isinstance(hx, Tensor) else hx


def _options(module: nn.Module, hx: States) -> tuple[Any, ...]:
    return module.cell, module.backend, getattr(module, "batch_first", False), type(hx)


def _empty(engine: Any, like: Tensor) -> Callable[[], Tensor]:
    """What makes such a tensor; large ones come from the engine's own memory."""
    if like.nbytes < 1 << 16:
        return partial(torch.empty_like, torch.empty_like(like))
    return partial(engine.pooled, like.shape, like.dtype)


def _undisturbed() -> bool:
    """Whether what runs here is for nobody but the caller, not differentiated, and in its tensors' dtypes."""
    return not (
        torch.compiler.is_compiling()
        or torch.is_grad_enabled()
        or torch._C._is_any_autocast_enabled()
        or dispatch.is_watched()
    )
