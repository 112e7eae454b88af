"""Conversion of torch.nn's modules to ours and back, by a change of the module's class.

The object stays the same, as when torch.nn.utils.parametrize changes a module's class. It keeps its Parameter objects,
buffers, submodules, hooks, attributes and mode, and all references to it stay valid.
"""

from __future__ import annotations

import operator
import weakref
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized, type_before_parametrizations

from ..request import checks
from . import flat_weights, replaced_methods, subclasses
from .flat_weights import FlatWeights
from .freezing import Freezable

LISTS = ("_flat_weights_names", "_flat_weights", "_flat_weight_refs")
"""Attributes in which torch.nn's layers keep lists of their weights, beside the parameters."""


def from_torch(module: nn.Module, ours: type[Freezable], *, backend: str = "auto") -> Any:
    """A new module of the class ``ours`` that shares parameters and attributes with ``module``. Errors: `to_ours`."""
    return to_ours(_twin(module), ours, backend=backend, old=module)


def as_torch(module: Freezable) -> nn.Module:
    """A new torch.nn module that shares parameters and attributes with ``module``. Errors: `to_torch`."""
    return to_torch(_twin(module), old=module)


def to_ours(module: Any, ours: type[Freezable], *, backend: str = "auto", old: nn.Module | None = None) -> Any:
    """Convert a module of torch.nn to a class of ours, in place.

    Args:
        module: an instance of exactly ``ours.torch_class``, or of a subclass whose calls do nothing else.
        ours: our class.
        backend: see `seqcells.call.choose`. Default: ``"auto"``
        old: the module whose attributes ``module`` was given. Default: ``module`` itself

    Returns:
        The module.

    Raises:
        TypeError, ValueError: the module cannot be converted. The message says why.
    """
    made_of: nn.Module = module if old is None else old
    theirs, kind, plain = ours.torch_class, type(module), type_before_parametrizations(module)
    if theirs is None or not issubclass(plain, theirs) or issubclass(plain, Freezable):
        wanted = "a module torch.nn has" if theirs is None else theirs.__name__
        raise TypeError(f"expected exactly {wanted}, got {plain.__name__}")
    target = _parametrized(subclasses.over(plain, ours), module)
    reason = replaced_methods.why_not(made_of, theirs)
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
    replaced_methods.rebind(module, made_of, kind)
    return module


def to_torch(module: Any, *, old: nn.Module | None = None) -> Any:
    """Convert a module of ours to torch.nn's class, or to the subclass of it that it was, in place.

    Arguments: see `to_ours`.

    Returns:
        The module.

    Raises:
        TypeError: torch.nn has no such module or not its options, a method was replaced on the instance, or a weight
            is missing.
        RuntimeError: a weight has a wrong size.
    """
    made_of: nn.Module = module if old is None else old
    kind, plain = type(module), type_before_parametrizations(module)
    theirs = vars(plain).get("torch_class")
    if theirs is None:
        raise TypeError(f"torch.nn has no module for {plain.__name__}")
    beyond = module._beyond_torch()
    if beyond:
        raise TypeError(f"torch.nn has no {' and no '.join(beyond)}, which this {plain.__name__} has")
    reason = replaced_methods.why_not(made_of, plain)
    if reason:
        raise TypeError(reason)
    _check_weights(module)
    lists = _lists(module) if issubclass(theirs, nn.RNNBase) else {}
    module.__class__ = _parametrized(theirs, module)
    for name in kind._own_state:
        vars(module).pop(name, None)
    vars(module).update(lists)
    replaced_methods.rebind(module, made_of, kind)
    if lists:
        nn.RNNBase.flatten_parameters(module)
    return module


def _twin(module: nn.Module) -> nn.Module:
    """A new module with the same Parameters, buffers, submodules, hooks and attributes, which are not copied."""
    new = type(module).__new__(type(module))
    own = {"_parameters", "_buffers", "_modules", "_non_persistent_buffers_set"}
    # Both modules share the dictionaries of hooks, so that handles can still remove a hook.
    vars(new).update({name: value.copy() if name in own else value for name, value in vars(module).items()})
    return new


def _parametrized(target: type[nn.Module], module: nn.Module) -> type[nn.Module]:
    """``target`` with the properties that torch.nn.utils.parametrize added to the class of a parametrized module."""
    if not is_parametrized(module):
        return target
    kept = {name: value for name, value in vars(type(module)).items() if name not in ("__dict__", "__weakref__")}
    return type(f"Parametrized{target.__name__}", (target,), kept)


def _take_assigned(module: Any, names: list[str], weights: list[Tensor | None], refs: list[Any]) -> None:
    """Keep entries that a user assigned to a layer's ``_flat_weights``, as long as torch.nn would use them."""
    stored = [flat_weights.stored(module, name) for name in names]
    if is_parametrized(module) or (len(weights) == len(names) and all(map(operator.is_, weights, stored))):
        return
    if FlatWeights.of([ref and ref() for ref in refs]).hold(stored):
        module._flat = FlatWeights.of(stored, weights[:])


def _check_weights(module: Freezable) -> None:
    """Raise as ``forward`` does if a weight is missing or of a wrong size. Parametrized weights are not evaluated."""
    sizes = module._sizes()
    tensors = module._assigned()
    if tensors is None:
        sizes = {name: size for name, size in sizes.items() if not is_parametrized(module, name)}
        tensors = flat_weights.attributes(module, [*sizes])
    for (name, size), tensor in zip(sizes.items(), checks.weights(sizes, tensors), strict=True):
        checks.size(name, tensor, size)


def _lists(module: Any) -> dict[str, Any]:
    """The lists of weights for a torch.nn layer.

    For a parametrized weight they hold a stand-in tensor, so that torch.nn reads the weight again at the next call.
    """
    names = module._flat_weights_names
    stored = [flat_weights.stored(module, name) for name in names]
    parametrized = [is_parametrized(module, name) for name in names]
    pairs = zip(stored, parametrized, strict=True)
    stored = [tensor.detach() if other and tensor is not None else tensor for tensor, other in pairs]
    assigned = None if any(parametrized) else module._assigned()
    refs = [None if tensor is None else weakref.ref(tensor) for tensor in stored]
    return dict(zip(LISTS, (names, (stored if assigned is None else assigned)[:], refs), strict=True))
