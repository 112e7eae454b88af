"""Conversion of subclasses of torch.nn's recurrent modules: classes with their methods that derive from ours."""

from __future__ import annotations

import abc
import types
from collections.abc import Iterator
from functools import cache
from typing import Any, Generic

from torch import nn

from .freezing import Freezable

HARMLESS = {
    *("__init__", "extra_repr", "reset_parameters"),
    *("__module__", "__qualname__", "__doc__", "__annotations__", "__annotate__", "__annotate_func__", "__dict__"),
    *("__weakref__", "__constants__", "__jit_unused_properties__", "__firstlineno__", "__static_attributes__"),
}
"""Attributes that every class has, or that no call of a module depends on. A subclass may define them."""
CALLED = {
    *("__call__", "_call_impl", "_wrapped_call_impl", "_slow_forward"),
    *("__getattribute__", "__getattr__", "__setattr__", "__delattr__", "__new__", "__init_subclass__"),
    *("__getstate__", "__setstate__", "__reduce__", "__reduce_ex__", "__getnewargs__", "__getnewargs_ex__"),
    *("__copy__", "__deepcopy__"),
}
"""Methods that Python and nn.Module use to call, read and copy a module."""

BY_SUPER = {"pytorch_forecasting.models.nn.rnn.RNN": {"forward"}}
"""Methods by class that may be overridden, because their use of weights goes through ``super()``."""


def above_module(kind: type) -> Iterator[type]:
    """The classes in the method resolution order of ``kind`` before nn.Module."""
    for base in kind.__mro__:
        if base is nn.Module:
            return
        yield base


def only_ours(ours: type[Freezable], theirs: type[nn.Module]) -> set[str]:
    """Attributes of our class and its instances that torch.nn's class does not have."""
    return {*dir(ours), *ours._own_state} - {*dir(theirs)}


def why_not(kind: type[nn.Module], ours: type[Freezable]) -> str | None:
    """Why ``kind``, a subclass of torch.nn's counterpart of ``ours``, cannot be combined with ``ours``; or None."""
    theirs = ours.torch_class
    if theirs is None:
        return f"torch.nn has no {ours.__name__}"
    relied = CALLED | {name for base in above_module(theirs) for name in vars(base)}
    own = only_ours(ours, theirs)
    for base in kind.__mro__:
        if base in (*theirs.__mro__, Generic, abc.ABC):
            continue
        known = BY_SUPER.get(f"{base.__module__}.{base.__qualname__}", set())
        for name in vars(base).keys() - HARMLESS - known:
            if name in relied:
                return f"{base.__name__} overrides {name}, which its calls or copies go through"
            if name in own:
                return f"{base.__name__} has {name}, which seqcells.{ours.__name__} has for itself"
    if type(kind) not in (type, abc.ABCMeta):
        return f"{kind.__name__} has a metaclass of its own, {type(kind).__name__}"
    return None


def over(kind: type[nn.Module], ours: type[Freezable]) -> type[nn.Module]:
    """The class to which a module of class ``kind`` is converted.

    It is ``ours`` if ``kind`` is exactly torch.nn's counterpart. For a subclass it is a class that derives from
    ``kind``, then ours, then torch.nn's, so that ``super()`` in a method of ``kind`` finds ours. Each subclass has one.

    Raises:
        TypeError: the subclass does something else in its calls, or Python cannot make a class of these bases.
    """
    if kind is ours.torch_class:
        return ours
    reason = why_not(kind, ours)
    if reason:
        raise TypeError(reason)
    made = (each for each in kind.__subclasses__() if vars(each).get("torch_class") is kind)
    return next(made, None) or types.new_class(
        kind.__name__, (kind, _both(ours)), {}, lambda body: body.update(_of(kind))
    )


def _of(kind: type[nn.Module]) -> dict[str, Any]:
    named = {name: getattr(kind, name) for name in ("__module__", "__qualname__", "__doc__")}
    return {**named, "torch_class": kind}


@cache
def _both(ours: type[Freezable]) -> type[nn.Module]:
    """A class that derives from ``ours``, then from torch.nn's counterpart. A user's subclass comes before both."""
    theirs = ours.torch_class
    if theirs is None:
        raise TypeError(f"torch.nn has no {ours.__name__}")

    def reduced(module: Freezable, protocol: Any) -> tuple[Any, ...]:
        return _blank, (module.torch_class, ours), module.__getstate__()

    # torch.nn's recurrent modules override these methods of nn.Module for their lists of weights, which ours lack.
    def state(module: nn.Module) -> dict[str, Any]:
        return {name: value for name, value in vars(module).items() if name != "_prepared"}

    def filled(module: Freezable, state: dict[str, Any]) -> None:
        nn.Module.__setstate__(module, state)
        module._begin_from_state()

    body = {name: getattr(nn.Module, name) for name in ("__setattr__", "_replicate_for_data_parallel")}
    body |= {"__getstate__": state, "__setstate__": filled, "__reduce_ex__": reduced}
    return type(ours.__name__, (ours, theirs), body)


def _blank(kind: type[nn.Module], ours: type[Freezable]) -> nn.Module:
    made = over(kind, ours)
    return made.__new__(made)
