"""Modules of other packages that hold a recurrent layer: where ours takes in one call what torch.nn's takes in several.

An adapter is a mixin of methods, in a module of its own (`ADAPTERS`). An owner's class becomes one of both, and the
owner stays the object that it is. A subclass that has those methods for itself keeps them.
"""

from __future__ import annotations

import types
from importlib import import_module
from typing import Any

from torch import nn

from ..modules.recurrent_layer import RecurrentLayer

ADAPTERS = {
    "torchrl.modules.tensordict_module.rnn.LSTMModule": "torchrl.LSTMModule",
    "torchrl.modules.tensordict_module.rnn.GRUModule": "torchrl.GRUModule",
    "sb3_contrib.common.recurrent.policies.RecurrentActorCriticPolicy": "sb3_contrib.RecurrentActorCriticPolicy",
    "pfrl.nn.recurrent_sequential.RecurrentSequential": "pfrl.RecurrentSequential",
}
"""By an owner's class: the mixin, in this folder. No package is imported for it."""


def refused(model: nn.Module) -> dict[nn.Module, str]:
    """Layers in a model that must stay torch.nn's, since their owner has no methods that could be replaced."""
    found = {}
    for owner in model.modules():
        base, mixin = _found(type(owner))
        missing = [name for name in _methods(mixin) if not hasattr(owner, name)] if mixin else []
        if missing:
            found |= dict.fromkeys(owner.children(), f"this version of {base.__name__} has no {missing[0]}")
    return found


def settle(model: nn.Module) -> dict[str, nn.Module]:
    """Give owners in a model the methods that their layers want; those that changed, by name."""
    return {name: owner for name, owner in model.named_modules() if _settle(owner)}


def _settle(owner: nn.Module) -> bool:
    kind = type(owner)
    layers = [child for child in owner.children() if isinstance(child, (RecurrentLayer, nn.RNNBase))]
    ours = [isinstance(layer, RecurrentLayer) for layer in layers]
    adapted = vars(kind).get("adapted_class")
    if adapted and not any(ours):
        owner.__class__ = adapted
        return True
    base, mixin = _found(kind)
    if adapted or mixin is None or not ours or not all(ours):
        return False
    between = kind.__mro__[: kind.__mro__.index(base)]
    if any(name in vars(each) for each in between for name in _methods(mixin)):
        return False
    owner.__class__ = _both(kind, mixin)
    return True


def _found(kind: type) -> tuple[type, type | None]:
    """The class that there is an adapter for, and the adapter."""
    for base in kind.__mro__:
        place = ADAPTERS.get(f"{base.__module__}.{base.__qualname__}")
        if place and "adapted_class" not in vars(base):
            module, _, name = place.partition(".")
            return base, getattr(import_module(f"{__package__}.{module}"), name)
    return kind, None


def _methods(mixin: type) -> list[str]:
    return [name for base in mixin.__mro__[:-1] for name in vars(base) if not name.startswith("__")]


def _both(kind: type, mixin: type) -> type:
    made = (each for each in kind.__subclasses__() if vars(each).get("adapted_class") is kind)
    named = {name: getattr(kind, name) for name in ("__module__", "__qualname__", "__doc__")}
    body = {**named, "adapted_class": kind, "__reduce_ex__": _reduced}
    return next(made, None) or types.new_class(kind.__name__, (mixin, kind), {}, lambda space: space.update(body))


def _reduced(owner: Any, protocol: Any) -> tuple[Any, ...]:
    """For copies and files: the class has no name of its own that they could find it by."""
    kind = type(owner).adapted_class
    _, *rest = super(type(owner), owner).__reduce_ex__(2)
    return _blank, (kind,), *rest[1:]


def _blank(kind: type) -> Any:
    _, mixin = _found(kind)
    made = kind if mixin is None else _both(kind, mixin)
    return made.__new__(made)
