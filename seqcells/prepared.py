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
from .weights import Weights, places

States = Tensor | Sequence[Tensor] | None


class _Plan(NamedTuple):
    """How to make calls of one key. Never changed, only replaced as a whole: threads may call a module at once."""

    key: tuple[Any, ...]
    layers: Sequence[Any]
    """The engine's ``Inference`` of each."""
    empty_output: Callable[[], Tensor] | None
    """None where the output is the first final state."""
    empty_final: Sequence[Callable[[], Tensor]]
    sizes: Sequence[int]
    """Bytes of a layer's initial states, then of its final ones."""


class Prepared:
    """The last inference call of a module: what was checked and chosen for it holds for every call like it.

    A call is like it if its tensors have the same shapes, dtypes and devices, the parameters lie where they lay, and
    nothing else has changed that a choice depends on. What it may still differ in, an engine's kernels are told.
    """

    def __init__(self) -> None:
        self._plan: _Plan | None = None
        self._seen: tuple[Any, ...] | None = None
        self._in_vain: tuple[Any, ...] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        # What is prepared is for this process and these parameters: copies of the module begin anew.
        return Prepared, ()

    def key(self, module: nn.Module, input: Tensor, hx: States) -> tuple[Any, ...] | None:
        """What a call like this one has in common with it; None for a call that must go the whole way."""
        if not (hx is None or isinstance(hx, (Tensor, tuple, list))) or not _undisturbed():
            return None
        states = () if hx is None else (hx,) if isinstance(hx, Tensor) else hx
        tensors = (input, *states)
        if not all(type(tensor) is Tensor and tensor.is_contiguous() and not tensor.is_neg() for tensor in tensors):
            return None
        form = [(tensor.shape, tensor.dtype, tensor.device) for tensor in tensors]
        options = module.cell, module.backend, getattr(module, "batch_first", False)
        return options, type(hx), form, places(module._parameters)

    def run(self, key: tuple[Any, ...], input: Tensor, hx: States) -> tuple[Tensor, list[Tensor]] | None:
        """Output and final states of a call with that key, shaped as they were; None where it is not like the last."""
        plan = self._plan
        if plan is None or plan.key != key or not plan.layers[0].holds():
            return None
        states = () if hx is None else (hx,) if isinstance(hx, Tensor) else hx
        final = [empty() for empty in plan.empty_final]
        at = [state.data_ptr() for state in states] or [0] * len(final)
        at += [state.data_ptr() for state in final]
        for k, layer in enumerate(plan.layers):
            if k:
                at = [place and place + size for place, size in zip(at, plan.sizes, strict=True)]
            output = plan.empty_output() if plan.empty_output else final[0]
            layer.at((input.data_ptr(), output.data_ptr(), *at))()
            input = output
        return output, final

    def is_second(self, key: tuple[Any, ...]) -> bool:
        """Whether the call before was like this one; only then it is worth while to prepare for a third. Not where that
        was tried in vain."""
        before, self._seen = self._seen, key
        return before == key != self._in_vain

    def remember(
        self,
        key: tuple[Any, ...],
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
            key: of that call.
            input: (T, B, features), laid out in memory as the call's own.
            states: (L·D, B, ·) each.
            weights: L·D of them.
            layers: L.
            output, final: the call's results, whose shapes and layouts the next ones will have. They may be the same.
        """
        self._plan, self._in_vain = None, key
        engine = functional.inferring_engine(choice, [input, *states], weights)
        contiguous = all(map(Tensor.is_contiguous, (input, output, *final)))
        if not hasattr(engine, "Inference") or not contiguous or not input.numel():
            return
        # Weights that are not the module's parameters, but made of them at each call, will have changed in the next.
        *_, own = key
        read = places({str(k): tensor for k, tensor in enumerate(tensor for w in weights for tensor in w.present())})
        if not {place[1:] for place in read} <= {place[1:] for place in own}:
            return
        made: list[Any] = []
        directions = len(states[0]) // layers
        for first in range(0, len(weights), directions):
            place = slice(first, first + directions)
            # Of states only the shapes: what is prepared should not keep the caller's tensors.
            q = Recurrence(cell, None, [torch.empty_like(state[place]) for state in states], weights[place])
            made.append(engine.Inference(q, input))
            input = output.view(*input.shape[:2], -1)
        if not all(layer.in_place for layer in made):
            return
        self._plan = _Plan(
            key,
            made,
            empty_output=None if output is final[0] else _empty(made[0], output),
            empty_final=[_empty(made[0], state) for state in final],
            sizes=2 * [state[:directions].numel() * state.itemsize for state in states],
        )
        self._in_vain = None


def _empty(layer: Any, like: Tensor) -> Callable[[], Tensor]:
    """What makes such a tensor; large ones come from the engine's own memory."""
    if like.nbytes < 1 << 16:
        return partial(torch.empty_like, torch.empty_like(like))
    return partial(layer.empty, like.shape)


def _undisturbed() -> bool:
    """Whether what runs here is for nobody but the caller, not differentiated, and in its tensors' dtypes."""
    return not (
        torch.compiler.is_compiling()
        or torch.is_grad_enabled()
        or torch.is_autocast_enabled("cpu")
        or dispatch.is_observed()
    )
