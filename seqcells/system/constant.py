"""What torch.compile need not trace."""

from collections.abc import Callable
from functools import cache
from typing import Any, ParamSpec, TypeVar, cast

P = ParamSpec("P")
R = TypeVar("R")


def constant(function: Callable[P, R]) -> Callable[P, R]:
    """Called once for each argument; torch.compile takes what it returns instead of following it into imports."""
    return untraced(cast("Callable[P, R]", cache(function)))  # which is called as the function is


def untraced(function: Callable[P, R]) -> Callable[P, R]:
    """Called as often as it is asked; torch.compile takes what it returned when the graph was made."""

    called: Callable[..., R] = function

    def constant(*args: Any) -> R:
        return called(*args)

    constant.__doc__ = function.__doc__
    vars(constant)["_dynamo_marked_constant"] = True
    return cast("Callable[P, R]", constant)  # all arguments are given by their places
