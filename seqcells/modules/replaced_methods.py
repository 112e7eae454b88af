"""Methods that were replaced on a module's instance, such as `forward`: whether a conversion can keep them."""

from __future__ import annotations

import functools
import types
from collections.abc import Iterator
from typing import Any

from torch import nn

from .subclasses import above_module


def why_not(module: nn.Module, kind: type[nn.Module]) -> str | None:
    """Why a method of ``kind`` that was replaced on the instance prevents a conversion, or None."""
    methods = {name for base in above_module(kind) for name, value in vars(base).items() if callable(value)}
    # Our calls do not use flatten_parameters, so its replacement is harmless.
    for name in sorted(methods & vars(module).keys() - {"flatten_parameters", "forward"}):
        return f"its {name} was replaced on the instance"
    if "forward" not in vars(module):
        return None
    if any(_is_own(each, module, "forward") for each in _inside(vars(module)["forward"])):
        return "its forward was replaced on the instance by a function that holds its class's: replace it after"
    # accelerate's hooks keep the original `forward` in another attribute, where `rebind` can replace it.
    if not any(_is_own(each, module, "forward") for value in vars(module).values() for each in _outside(value)):
        return "its forward was replaced on the instance by another"
    return None


def rebind(module: nn.Module, old: nn.Module, kind: type[nn.Module]) -> None:
    """Bind methods of ``old`` that are held in the attributes of ``module`` to ``module``.

    Args:
        module: the module after the conversion.
        old: the module before the conversion: the same object, or the module whose attributes ``module`` got.
        kind: the class that ``old`` had.
    """
    for name, value in vars(module).items():
        vars(module)[name] = _rebound(value, module, old, kind)


def _rebound(value: Any, module: nn.Module, old: nn.Module, kind: type[nn.Module]) -> Any:
    def again(part: Any) -> Any:
        return _rebound(part, module, old, kind)

    if value is old:
        return module
    if isinstance(value, types.MethodType) and value.__self__ is old:
        name = value.__name__
        own = getattr(kind, name, None) is value.__func__ and hasattr(type(module), name)
        return types.MethodType(getattr(type(module), name) if own else value.__func__, module)
    if type(value) is functools.partial:
        parts = [value.func, *value.args, *value.keywords.values(), *vars(value).values()]
        if any(again(part) is not part for part in parts):
            keywords = {key: again(part) for key, part in value.keywords.items()}
            new = functools.partial(again(value.func), *map(again, value.args), **keywords)
            vars(new).update({key: again(part) for key, part in vars(value).items()})
            return new
    return value


def _is_own(value: Any, module: nn.Module, name: str) -> bool:
    """Whether a value is the method of the module's class, bound to the module, or that method's function."""
    function = getattr(type(module), name)
    return value is function or (
        isinstance(value, types.MethodType) and value.__self__ is module and value.__func__ is function
    )


def _outside(value: Any) -> Iterator[Any]:
    """A value and, for a partial, its parts: the values that `rebind` can replace."""
    yield value
    if type(value) is functools.partial:
        for part in (value.func, *value.args, *value.keywords.values()):
            yield from _outside(part)


def _inside(value: Any, seen: set[int] | None = None) -> Iterator[Any]:
    """Values that functions hold in closures and default arguments, where `rebind` cannot replace them."""
    seen = set() if seen is None else seen
    for part in _outside(value):
        function = getattr(part, "__func__", part)
        if not isinstance(function, types.FunctionType) or id(function) in seen:
            continue
        seen.add(id(function))
        kept = [cell.cell_contents for cell in function.__closure__ or () if _is_filled(cell)]
        for each in (*kept, *(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
            yield from _outside(each)
            yield from _inside(each, seen)


def _is_filled(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False
