"""Identifiers for the values of a program in printed functions."""

import re
from collections.abc import Callable, Collection, Iterable

from .expressions import Expression


def identifiers(
    values: Iterable[Expression], called: Callable[[Expression], str], reserved: Collection[str]
) -> dict[Expression, str]:
    """A distinct identifier for each value: the name from ``called``, with a number appended if the name is taken."""
    names: dict[Expression, str] = {}
    taken, counts = set(reserved), dict[str, int]()
    for v in values:
        name = base = re.sub(r"\W", "_", called(v))
        while name in taken:
            counts[base] = counts.get(base, 1) + 1
            name = f"{base}_{counts[base]}"
        taken.add(name)
        names[v] = name
    return names
