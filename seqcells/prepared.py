"""Inference calls like the one before, which need be neither checked nor chosen for once more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import _profiler_enabled
from torch.autograd.profiler import record_function
from torch.nn.modules.module import _global_forward_hooks, _global_forward_pre_hooks

from . import dispatch
from .cells import Cell
from .recurrence import Recurrence
from .weights import Weights

if TYPE_CHECKING:
    from typing_extensions import Self

States = Tensor | Sequence[Tensor] | None


class Likeness(NamedTuple):
    """What calls of a module have in common whose checks and choice come out the same.

    Their tensors have the same types, shapes, strides, dtypes and devices, none is transformed or traced in any way,
    and nothing else has changed that a choice depends on. Where the tensors lie, and what is in them, may differ.
    """

    options: tuple[Any, ...]
    names: tuple[str, ...]
    """Of all parameters: pruning leaves another under a new one."""
    count: int
    """Of tensors."""
    twins: tuple[tuple[int, int], ...]
    """Of those that are one and the same, such as states that begin with the same zeros, the places."""
    guard: Any
    """torch.compile's own check of tensors, in C++, which wants each but once."""

    @staticmethod
    def of(module: nn.Module, tensors: Sequence[Tensor], *options: Any) -> Likeness | None:
        """That of a call; None where torch has no such check, and nothing is prepared: it is no public one."""
        first: dict[int, int] = {}
        twins = [(k, first[id(t)]) for k, t in enumerate(tensors) if first.setdefault(id(t), k) != k]
        once = [tensors[k] for k in first.values()]
        try:
            guard = torch._C._dynamo.guards.TensorGuards(*once, dynamic_dims_sizes=None, dynamic_dims_strides=None)
        except (AttributeError, TypeError):
            return None
        return Likeness(options, tuple(module._parameters), len(tensors), tuple(twins), guard)

    def fits(self, module: nn.Module, tensors: Sequence[Tensor], *options: Any) -> bool:
        if self.options != options or self.names != tuple(module._parameters) or self.count != len(tensors):
            return False
        if self.twins:
            if any(tensors[k] is not tensors[first] for k, first in self.twins):
                return False
            again = {k for k, _ in self.twins}
            tensors = [tensor for k, tensor in enumerate(tensors) if k not in again]
        return self.guard.check(*tensors)


def parameters(module: Freezable) -> list[Tensor]:
    """Its own, in the order of registration, then what was assigned instead of them."""
    own = [parameter for parameter in module._parameters.values() if parameter is not None]
    assigned = module._assigned()
    return own if assigned is None else own + [tensor for tensor in assigned if tensor is not None]


_CALL = nn.Module.__call__


def is_plain(module: nn.Module, call: Callable[..., Any] = _CALL) -> bool:
    """Whether a call of the module is a call of this package's ``forward`` and of nothing besides.

    Args:
        call: what torch's modules have as ``__call__``, which torch.fx replaces. Default: what torch came with
    """
    kind, own = type(module), module.__dict__
    hooks = own["_forward_hooks"] or own["_forward_pre_hooks"] or _global_forward_hooks or _global_forward_pre_hooks
    return kind.forward is kind._forward and kind.__call__ is call and "forward" not in own and not hooks


class Freezable(nn.Module):
    """A module whose weights may be kept in the form that its kernels multiply."""

    backend: str
    _prepared: Prepared
    _roles: tuple[str, ...]

    _frozen = 0
    """How often the module was frozen, 0 while it is not."""
    _freezings = 0
    _own_state: ClassVar = ("_freezings", "_frozen", "_prepared", "_roles", "backend")
    """The names of those that `_settle` sets, and of what comes to them later."""

    def _settle(self, backend: str) -> None:
        """Set the attributes that torch.nn's module for the same cell has not; it has all others."""
        self.backend = dispatch.check_name(backend)
        self._begin_anew()

    def _begin_anew(self) -> None:
        """Forget what is prepared."""
        self._prepared = Prepared()

    def _sizes(self) -> dict[str, tuple[int, ...]]:
        """Of the weights that it must have, by name, in the order of registration."""
        raise NotImplementedError

    def _assigned(self) -> list[Tensor | None] | None:
        """What is multiplied instead of the parameters, in their order, if anything is."""

    def __getstate__(self) -> dict[str, Any]:
        # What is prepared is for this process and these parameters: copies begin anew, and files are of torch's types.
        return {name: value for name, value in super().__getstate__().items() if name != "_prepared"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._begin_anew()

    def freeze(self) -> Self:
        """Promise that the weights stay as they are, so that inference calls need not pack them each time.

        The CPU engine then keeps packed copies: a second copy of the weights in memory. They are made at the third
        alike call of the module, or at a stream's first step. Training and other backends are as before.

        A change that torch counts makes the engine pack anew: an optimizer's step, ``load_state_dict``, an in-place
        operation, another parameter. A write that torch does not count is excluded by this promise: through ``.data``,
        through numpy or DLPack memory. After such a write call `freeze` again, or `unfreeze` before.

        Returns:
            The module itself.
        """
        self._freezings += 1
        self._frozen = self._freezings
        return self

    def unfreeze(self) -> Self:
        """Take the promise of `freeze` back: weights are read where they lie, at every call. Returns the module."""
        self._frozen = 0
        return self


def is_frozen(module: nn.Module) -> bool:
    return bool(module._frozen)


def versions(tensors: Sequence[Tensor]) -> list[tuple[int, int]] | None:
    """Where each tensor lies, and how often torch has counted a write to it; None if it does not, as with inference
    tensors."""
    return None if any(t.is_inference() for t in tensors) else [(t.data_ptr(), t._version) for t in tensors]


class Inference(NamedTuple):
    """An engine's ``Inference`` of a stack, for a module's parameters."""

    engine: Any
    call: Any
    order: Sequence[int] | None
    """Which of the `parameters` it takes, one after the other; None where it is all of them as they come."""

    @staticmethod
    def of(
        module: nn.Module,
        choice: dispatch.Choice,
        cell: type[Cell],
        input: Tensor,
        states: Sequence[Tensor],
        weights: Sequence[Weights],
        layers: int,
    ) -> Inference | None:
        """None where no engine has it, or where the weights are no parameters, but made of them at each call.

        Args:
            input: (T, B, features), laid out in memory as a call's own.
            states: (L·D, B, ·) each, of which only the shapes count.
            weights: L·D of them.
            layers: L.
        """
        tensors = [input, *states, *(tensor for w in weights for tensor in w.present())]
        if not dispatch.BACKENDS[choice.backend].engine:
            return None
        if dispatch.is_differentiated(tensors) or dispatch.is_observed(tensors):
            return None
        engine = dispatch.engine(choice.backend)
        place = {id(parameter): k for k, parameter in enumerate(parameters(module))}
        read = [id(tensor) for w in weights for tensor in w.present()]
        if not hasattr(engine, "Inference") or not input.numel() or not place.keys() >= {*read}:
            return None
        directions = len(weights) // layers
        stack = []
        for first in range(0, len(weights), directions):
            own = slice(first, first + directions)
            # What is prepared keeps no tensor of the caller's.
            like = [torch.empty_like(state[own]) for state in states]
            stack.append(Recurrence(cell, None, like, weights[own], input=input))
            input = input.new_empty(*input.shape[:2], directions * like[0].shape[-1])
        call = engine.Inference(stack, versions(parameters(module)) if is_frozen(module) else None)
        if not call.in_place:
            return None
        in_order = read == list(map(id, parameters(module)))
        return Inference(engine, call, None if in_order else [place[each] for each in read])

    def holds(self, parameters: Sequence[Tensor]) -> bool:
        return self.call.holds() and (not self.call.keeps or self.call.versions == versions(parameters))

    def __call__(self, *tensors: Tensor | None, parameters: Sequence[Tensor]) -> None:
        """Of the tensors that the engine's takes those before the weights."""
        weights = parameters if self.order is None else [parameters[k] for k in self.order]
        if not _profiler_enabled():
            self.call(*tensors, *weights)
            return
        with record_function("seqcells::inference"):
            self.call(*tensors, *weights)


class _Plan(NamedTuple):
    """How to make calls like one. Never changed, only replaced as a whole: threads may call a module at once."""

    like: Likeness
    inference: Inference
    empty_final: Sequence[Callable[[], Tensor]]
    empty_outputs: Sequence[Callable[[], Tensor]]
    """Of each layer; none where the output is the first final state."""


class Prepared:
    """The last inference call of a module: what was checked and chosen for it holds for every call like it."""

    def __init__(self) -> None:
        self._plan: _Plan | None = None
        self._seen: Likeness | None = None
        self._in_vain: Likeness | None = None

    def run(self, module: nn.Module, input: Tensor, hx: States) -> tuple[Tensor, Sequence[Tensor]] | None:
        """Output and final states, shaped as they were in the last call; None where this one is not like it."""
        if not _undisturbed():
            return None
        plan = self._plan
        if plan is None or not _are_plain(input, hx):
            return None
        states, weights = _states(hx), parameters(module)
        if not plan.like.fits(module, (input, *states, *weights), *_options(module, hx)) or not plan.inference.holds(
            weights
        ):
            return None
        final = [empty() for empty in plan.empty_final]
        outputs = [empty() for empty in plan.empty_outputs] or final[:1]
        plan.inference(input, *(states or [None] * len(final)), *final, *outputs, parameters=weights)
        return outputs[-1], final

    def likeness(self, module: nn.Module, input: Tensor, hx: States) -> Likeness | None:
        """That of a call and the one before it; only then it is worth while to prepare for a third. None where they are
        not alike, the call is for others to see, or that was tried in vain."""
        if not _undisturbed() or not _are_plain(input, hx):
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
            input, states, weights, layers: as `Inference` has them.
            output, final: the call's results, whose shapes and layouts the next ones will have. They may be the same.
        """
        self._plan, self._in_vain = None, like
        if not all(map(Tensor.is_contiguous, (input, output, *final))):
            return
        inference = Inference.of(module, choice, cell, input, states, weights, layers)
        if inference is None:
            return
        last = () if output is final[0] else (output,)
        below = [output.new_empty(*input.shape[:2], output.shape[-1])] * (layers - 1)
        empties = [[_empty(inference.engine, each) for each in tensors] for tensors in (final, (*below, *last))]
        self._plan, self._in_vain = _Plan(like, inference, *empties), None


def _states(hx: States) -> Sequence[Tensor]:
    return () if hx is None else (hx,) if isinstance(hx, Tensor) else hx


def _are_plain(input: Tensor, hx: States) -> bool:
    """Whether they are what the check can be asked about: of nested tensors it does not return."""
    if not (hx is None or isinstance(hx, (Tensor, tuple, list))):
        return False
    return all(type(tensor) is Tensor and not tensor.is_nested for tensor in (input, *_states(hx)))


def _options(module: nn.Module, hx: States) -> tuple[Any, ...]:
    own = module.cell, module.backend, module._frozen, getattr(module, "batch_first", False)
    return type(module), *own, type(hx)


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
