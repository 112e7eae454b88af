"""Decorators for functions that torch.compile does not trace."""

from collections.abc import Callable
from functools import cache
from typing import Any, ParamSpec, TypeVar, cast

P = ParamSpec("P")
R = TypeVar("R")


def constant(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function that is called once for each argument and cached.

    torch.compile takes the result as a constant, instead of tracing the function and its imports.
    """
    return untraced(cast("Callable[P, R]", cache(function)))  # the cached function has the same signature


def untraced(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function without a cache; torch.compile keeps the result of the call that was made while tracing."""

    called: Callable[..., R] = function

    def constant(*args: Any) -> R:
        return called(*args)

    constant.__doc__ = function.__doc__
    vars(constant)["_dynamo_marked_constant"] = True
    return cast("Callable[P, R]", constant)  # all callers give arguments by position
