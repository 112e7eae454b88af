"""What printed functions call the values of a program."""

import re
from collections.abc import Callable, Collection, Iterable

from .expressions import Expression


def identifiers(
    values: Iterable[Expression], called: Callable[[Expression], str], reserved: Collection[str]
) -> dict[Expression, str]:
    """A name for each, no two the same: what it is ``called``, as an identifier, and a number where that is taken."""
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
