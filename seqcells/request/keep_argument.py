"""Which values of which layer a call keeps, found from the names in its argument ``keep``."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

from torch import Tensor

from ..cells import Cell
from ..system.untraced import constant
from .recurrence import letters_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

_OF_LAYER = re.compile(r"(\w+)_l(\d+)")

Names: TypeAlias = "tuple[str, Unpack[tuple[str, ...]]] | list[str]"
"""Names of values that a call keeps, at least one."""
Wanted = tuple[tuple[str, str], ...]
"""Pairs for one layer: the name that the call gives, such as ``c_l0``, and the value's own name, ``c``."""


def by_layer(cell: type[Cell], keep: Sequence[str], layers: int) -> Sequence[Wanted]:
    """The kept values of each layer.

    ``c`` is the value c of the last layer. ``c_l0`` is the value c of the first layer, named like its parameters.

    Raises:
        TypeError: ``keep`` is no sequence of names.
        ValueError: the cell has no such value, or the stack has no such layer.
    """
    if isinstance(keep, str) or not all(isinstance(name, str) for name in keep):
        raise TypeError(f'keep should be a sequence of names, such as keep=("c",), got: {keep!r}')
    if not keep:
        return ((),) * layers
    for name in keep:
        if not name.isidentifier():
            raise ValueError(f"keep should have names of values, got: {name!r}")
    return _by_layer(cell, " ".join(keep), layers)


@constant
def _by_layer(cell: type[Cell], names: str, layers: int) -> Sequence[Wanted]:
    found: list[Wanted] = [()] * layers
    for name in names.split():
        layer, value, numbered = layers - 1, name, _OF_LAYER.fullmatch(name)
        try:
            letters_of(cell, name)
        except ValueError:
            if numbered is None:
                raise
            value, layer = numbered[1], int(numbered[2])
            letters_of(cell, value)
            if layer >= layers:
                raise ValueError(f"there is no layer {layer} to keep {name} of: there are {layers}") from None
        found[layer] += ((name, value),)
    return tuple(found)


def values(wanted: Wanted) -> tuple[str, ...]:
    """The values' own names, without repeats."""
    return tuple(dict.fromkeys([value for _, value in wanted]))


def by_name(wanted: Wanted, kept: Sequence[Tensor]) -> dict[str, Tensor]:
    """The tensors ``kept``, in the order of `values`, by the names that the call gives."""
    found = dict(zip(values(wanted), kept, strict=True))
    return {name: found[value] for name, value in wanted}
