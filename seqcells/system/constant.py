"""What torch.compile need not trace."""

from collections.abc import Callable
from functools import cache
from typing import Any


def constant(function: Callable) -> Callable:
    """Called once for each argument; torch.compile takes what it returns instead of following it into imports."""
    return untraced(cache(function))


def untraced(function: Callable) -> Callable:
    """Called as often as it is asked; torch.compile takes what it returned when the graph was made."""

    def constant(*args: Any) -> Any:
        return function(*args)

    constant.__doc__ = function.__doc__
    constant._dynamo_marked_constant = True
    return constant
