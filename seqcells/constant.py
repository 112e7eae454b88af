"""What torch.compile need not trace."""

from collections.abc import Callable
from functools import cache
from typing import Any


def constant(function: Callable) -> Callable:
    """Called once for each argument; torch.compile takes what it returns instead of following it into imports."""
    cached = cache(function)

    def constant(*args: str) -> Any:
        return cached(*args)

    constant.__doc__ = function.__doc__
    constant._dynamo_marked_constant = True
    return constant
