"""The definition of a loop."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import Tensor

Weights = Mapping[str, Tensor]


class Loop(NamedTuple):
    """A step by another author, and our cell that should equal it.

    Args:
        cell: our cell's name.
        options: our cell's options.
        step: (weights by our names, x, states in our order, streams by name) → the output and the states.
        theirs: the name of torchrecurrent's cell, or "".
        zeros: our parameter, the row block of it that the other cell lacks, and the number of blocks. The test sets the
        block to zero.
    """

    cell: str
    options: Mapping[str, Any]
    step: Callable[..., tuple[Tensor, ...]]
    theirs: str = ""
    zeros: tuple[str, int, int] | None = None


LOOPS: dict[str, Loop] = {}
"""All loops by our cell's name with its options; torchrecurrent's loops have the package's name appended."""


def keep(loop, package=""):
    words = ",".join(f"{name}={getattr(value, 'name', value)}" for name, value in loop.options.items())
    name = (f"{loop.cell}[{words}]" if words else loop.cell) + package
    assert LOOPS.setdefault(name, loop) is loop
