"""From torch.nn's modules to ours and back, the parameters themselves handed over."""

import inspect
import warnings
from typing import Any

from torch import nn


def rebuilt(old: nn.Module, expected: type[nn.Module] | None, target: type[nn.Module] | None, **extra: Any) -> Any:
    """A ``target`` with the settings of ``old``, its parameters, hooks and training mode; none are copied.

    Raises:
        TypeError: ``old`` is not exactly an ``expected``, or torch.nn has no such module.
        ValueError: parameters that are not plain, as after a parametrization or weight_norm.
    """
    why_not = unsuitable(old, expected)
    if why_not:
        raise TypeError(why_not)
    if target is None:
        raise TypeError(f"torch.nn has no module for {type(old).__name__}")
    names = {name for kind in target.__mro__ for name in inspect.signature(kind).parameters} | {"nonlinearity"}
    settings = {name: value for name, value in old.__dict__.items() if name in names - {"mode"}}
    if not old.__dict__.get("proj_size"):
        settings.pop("proj_size", None)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="dropout option adds dropout")
        new = target(**{**settings, **extra, "device": "meta"})
    if set(old._parameters) != set(new._parameters):
        raise ValueError(
            f"the parameters of this {type(old).__name__} are not plain (parametrized, or weight_norm?): "
            f"it has {', '.join(old._parameters)}; convert first, then change them"
        )
    for name, parameter in old._parameters.items():
        setattr(new, name, parameter)
    for name, value in old.__dict__.items():
        # The dictionaries themselves: handles that remove a hook go on working.
        if "_hook" in name and name in new.__dict__:
            new.__dict__[name] = value
    return new.train(old.training)


def unsuitable(old: nn.Module, expected: type[nn.Module] | None) -> str | None:
    """Why ``old`` cannot stand for an ``expected``, or None."""
    if nn.utils.parametrize.is_parametrized(old):
        return "it is parametrized: convert first, then register the parametrization"
    if type(old) is expected:
        return None
    wanted = "a module torch.nn has" if expected is None else expected.__name__
    return f"expected exactly {wanted}, got {type(old).__name__}: a subclass may do something else in forward"
