"""Owners: modules of other packages that hold a recurrent layer, and for which our layers need other methods.

Where torch.nn's layer needs several calls, for instance one for each time step, our layer needs one call. An adapter is
a mixin of methods, in a module of its own (`ADAPTERS`). An owner gets a class made of the mixin and its former class,
and stays the same object. An owner is not adapted if a subclass of the known class overrides one of these methods.
"""

from __future__ import annotations

import copyreg
import inspect
import types
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from torch import nn

from ...modules.recurrent_layer import RecurrentLayer

ADAPTERS = {
    "torchrl.modules.tensordict_module.rnn.LSTMModule": "torchrl.LSTMModule",
    "torchrl.modules.tensordict_module.rnn.GRUModule": "torchrl.GRUModule",
    "sb3_contrib.common.recurrent.policies.RecurrentActorCriticPolicy": "sb3_contrib.RecurrentActorCriticPolicy",
    "pfrl.nn.recurrent_sequential.RecurrentSequential": "pfrl.RecurrentSequential",
}
"""The mixin (module of this folder, class) for each owner's class. Classes are found by name, without an import."""
GO_BY_TYPE = "torchrl", "pfrl"
"""The packages whose own methods check for torch.nn's types, and so do not work with our layers without an adapter."""


def why_not(model: nn.Module) -> dict[nn.Module, str]:
    """The layers in a model that must stay torch.nn's, with reasons.

    Their owner cannot be adapted, and does not work with our layers without an adapter.
    """
    found: dict[nn.Module, str] = {}
    for owner in model.modules():
        reason = _why_not(owner)
        if reason and _goes_by_type(owner):
            found |= dict.fromkeys(_layers(owner), reason)
    return found


def mixed(model: nn.Module) -> set[nn.Module]:
    """Our layers in a model whose owner also holds layers of torch.nn, and does not work with a mixture of both."""
    found: set[nn.Module] = set()
    for owner in filter(_goes_by_type, model.modules()):
        ours = {layer for layer in _layers(owner) if isinstance(layer, RecurrentLayer)}
        if len(ours) < len({*_layers(owner)}):
            found |= ours
    return found


def settle(model: nn.Module) -> dict[str, nn.Module]:
    """Adapt the owners in a model to the layers that they hold now, or undo it; returns the changed owners by name."""
    return {name: owner for name, owner in model.named_modules() if _settle(owner)}


def _settle(owner: nn.Module) -> bool:
    kind = type(owner)
    ours = [isinstance(layer, RecurrentLayer) for layer in _layers(owner)]
    adapted = vars(kind).get("adapted_class")
    if adapted and not any(ours):
        owner.__class__ = adapted
        return True
    _, mixin = _found(kind)
    if adapted or mixin is None or not ours or not all(ours) or _why_not(owner):
        return False
    owner.__class__ = _both(kind, mixin)
    return True


def _why_not(owner: nn.Module) -> str | None:
    """Why an adapter cannot replace an owner's methods, or None.

    The result is also None for a module that is no owner, and for an owner that is already adapted.
    """
    kind = type(owner)
    base, mixin = _found(kind)
    if mixin is None or "adapted_class" in vars(kind):
        return None
    between = kind.__mro__[: kind.__mro__.index(base)]
    for name, method in _methods(mixin):
        if any(name in vars(each) for each in between):
            return f"{kind.__name__} has a {name} of its own"
        if not hasattr(owner, name) or (
            inspect.isfunction(method) and _parameters(method) != _parameters(inspect.getattr_static(base, name))
        ):
            return f"this version of {base.__name__} has no {name}, or another"
    return None


def _parameters(method: Any) -> list[str]:
    names = inspect.signature(getattr(method, "__func__", method)).parameters
    return [name for name in names if name != "self"]  # the other package's method may be static


def _layers(owner: nn.Module) -> list[nn.Module]:
    """The recurrent layers that an owner calls: all its children, or the children that the adapter names."""
    _, mixin = _found(type(owner))
    names = getattr(mixin, "__layers__", None)
    children = owner._modules.values() if names is None else (owner._modules.get(name) for name in names)
    return [child for child in children if isinstance(child, (RecurrentLayer, nn.RNNBase))]


def _goes_by_type(owner: nn.Module) -> bool:
    base, mixin = _found(type(owner))
    return mixin is not None and base.__module__.partition(".")[0] in GO_BY_TYPE


def _found(kind: type) -> tuple[type, type | None]:
    """The base class of ``kind`` that has an adapter, and the adapter; ``kind`` and None if there is none."""
    for base in kind.__mro__:
        place = ADAPTERS.get(f"{base.__module__}.{base.__qualname__}")
        if place and "adapted_class" not in vars(base):
            module, _, name = place.partition(".")
            return base, getattr(import_module(f"{__package__}.{module}"), name)
    return kind, None


def _methods(mixin: type) -> Iterator[tuple[str, Any]]:
    yield from ((name, value) for name, value in vars(mixin).items() if not name.startswith("__"))


def _both(kind: type, mixin: type) -> Any:
    made = (each for each in kind.__subclasses__() if vars(each).get("adapted_class") is kind)
    named = {name: getattr(kind, name) for name in ("__module__", "__qualname__", "__doc__")}
    body = {**named, "adapted_class": kind, "__reduce_ex__": _reduced}
    return next(made, None) or types.new_class(kind.__name__, (mixin, kind), {}, lambda space: space.update(body))


_NEW = copyreg.__newobj__  # pyright: ignore[reportAttributeAccessIssue]  # pickle uses this function


def _reduced(owner: Any, protocol: Any) -> tuple[Any, ...]:
    """The `__reduce_ex__` of an adapted owner: pickle cannot find the made class by name, so `_blank` makes it."""
    made, given, *rest = super(type(owner), owner).__reduce_ex__(2)
    return (_blank, (type(owner).adapted_class,), *rest) if made is _NEW else (made, given, *rest)


def _blank(kind: Any) -> Any:
    _, mixin = _found(kind)
    made = kind if mixin is None else _both(kind, mixin)
    return made.__new__(made)
