"""From torch.nn's modules to ours and back: a module changes its class, and keeps all that is on it.

The object stays, as it does when torch.nn.utils.parametrize changes a module's class: with its Parameter objects,
buffers, submodules, hooks, attributes and mode, and for all who hold it.
"""

from __future__ import annotations

import operator
import weakref
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized, type_before_parametrizations

from ..request import checks
from . import flat_weights, patches, subclasses
from .flat_weights import FlatWeights
from .freezing import Freezable

LISTS = ("_flat_weights_names", "_flat_weights", "_flat_weight_refs")
"""What torch.nn's layers keep beside their parameters."""


def from_torch(module: nn.Module, ours: type[Freezable], *, backend: str = "auto") -> Any:
    """Another module, of ours, with all that is on ``module``, which stays. Errors: `to_ours`."""
    return to_ours(_twin(module), ours, backend=backend, old=module)


def as_torch(module: Freezable) -> nn.Module:
    """Another module, of torch.nn, with all that is on ``module``, which stays. Errors: `to_torch`."""
    return to_torch(_twin(module), old=module)


def to_ours(module: Any, ours: type[Freezable], *, backend: str = "auto", old: nn.Module | None = None) -> Any:
    """Let a module of torch.nn be one of ours, in place.

    Args:
        module: of exactly ``ours.torch_class``, or of a subclass that does nothing else in its calls.
        ours: the class.
        old: the module whose attributes it was given. Default: itself

    Returns:
        The module.

    Raises:
        TypeError, ValueError: it must stay as it is, and why.
    """
    made_of: nn.Module = module if old is None else old
    theirs, kind, plain = ours.torch_class, type(module), type_before_parametrizations(module)
    if theirs is None or not issubclass(plain, theirs) or issubclass(plain, Freezable):
        wanted = "a module torch.nn has" if theirs is None else theirs.__name__
        raise TypeError(f"expected exactly {wanted}, got {plain.__name__}")
    target = _parametrized(subclasses.over(plain, ours), module)
    reason = patches.why_not(made_of, theirs)
    if reason:
        raise TypeError(reason)
    state = vars(module)
    names = {*state, *module._parameters, *module._buffers, *module._modules} - {*LISTS}
    taken = names & subclasses.only_ours(ours, theirs)
    if taken:
        raise ValueError(f"it has an attribute {min(taken)}, which seqcells.{ours.__name__} has for itself")
    module.__class__ = target
    lists = [state.pop(name, None) for name in LISTS]
    module._settle(backend)
    if issubclass(theirs, nn.RNNBase):
        _take_assigned(module, *lists)
        module.flatten_parameters()
    patches.rebind(module, made_of, kind)
    return module


def to_torch(module: Any, *, old: nn.Module | None = None) -> Any:
    """Let a module of ours be torch.nn's, or of its subclass that it was, in place; arguments as `to_ours`.

    Returns:
        The module.

    Raises:
        TypeError: torch.nn has no such module or not its options, a method was replaced on the instance, or a weight
            is missing.
        RuntimeError: a weight has another size.
    """
    made_of: nn.Module = module if old is None else old
    kind, plain = type(module), type_before_parametrizations(module)
    theirs = vars(plain).get("torch_class")
    if theirs is None:
        raise TypeError(f"torch.nn has no module for {plain.__name__}")
    beyond = module._beyond_torch()
    if beyond:
        raise TypeError(f"torch.nn has no {' and no '.join(beyond)}, which this {plain.__name__} has")
    reason = patches.why_not(made_of, plain)
    if reason:
        raise TypeError(reason)
    _check_weights(module)
    lists = _lists(module) if issubclass(theirs, nn.RNNBase) else {}
    module.__class__ = _parametrized(theirs, module)
    for name in kind._own_state:
        vars(module).pop(name, None)
    vars(module).update(lists)
    patches.rebind(module, made_of, kind)
    if lists:
        nn.RNNBase.flatten_parameters(module)
    return module


def _twin(module: nn.Module) -> nn.Module:
    """Another module with the same Parameters, buffers, submodules, hooks and attributes; none are copied."""
    new = type(module).__new__(type(module))
    own = {"_parameters", "_buffers", "_modules", "_non_persistent_buffers_set"}
    # The dictionaries of hooks themselves: handles that remove a hook go on working.
    vars(new).update({name: value.copy() if name in own else value for name, value in vars(module).items()})
    return new


def _parametrized(target: type[nn.Module], module: nn.Module) -> type[nn.Module]:
    """``target`` with the properties of a parametrized module, as torch.nn.utils.parametrize has made them."""
    if not is_parametrized(module):
        return target
    kept = {name: value for name, value in vars(type(module)).items() if name not in ("__dict__", "__weakref__")}
    return type(f"Parametrized{target.__name__}", (target,), kept)


def _take_assigned(module: Any, names: list[str], weights: list[Tensor | None], refs: list[Any]) -> None:
    """Keep the entries that somebody assigned to a layer's flat weights, while torch.nn would multiply them."""
    stored = [flat_weights.stored(module, name) for name in names]
    if is_parametrized(module) or (len(weights) == len(names) and all(map(operator.is_, weights, stored))):
        return
    if FlatWeights.of([ref and ref() for ref in refs]).hold(stored):
        module._flat = FlatWeights.of(stored, weights[:])


def _check_weights(module: Freezable) -> None:
    """Raise as ``forward`` does for a weight that is lost. A parametrized one is not evaluated."""
    sizes = module._sizes()
    tensors = module._assigned()
    if tensors is None:
        sizes = {name: size for name, size in sizes.items() if not is_parametrized(module, name)}
        tensors = flat_weights.attributes(module, [*sizes])
    for (name, size), tensor in zip(sizes.items(), checks.weights(sizes, tensors), strict=True):
        checks.size(name, tensor, size)


def _lists(module: Any) -> dict[str, Any]:
    """The lists of torch.nn's layer. A parametrized weight is none of its tensors: it is read at the next call."""
    names = module._flat_weights_names
    stored = [flat_weights.stored(module, name) for name in names]
    parametrized = [is_parametrized(module, name) for name in names]
    pairs = zip(stored, parametrized, strict=True)
    stored = [tensor.detach() if other and tensor is not None else tensor for tensor, other in pairs]
    assigned = None if any(parametrized) else module._assigned()
    refs = [None if tensor is None else weakref.ref(tensor) for tensor in stored]
    return dict(zip(LISTS, (names, (stored if assigned is None else assigned)[:], refs), strict=True))
