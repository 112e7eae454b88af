"""How a cell declares what it has: products, what there is several times, sizes by letter, options."""

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from types import SimpleNamespace
from typing import Any, NamedTuple

from .activations import ACTIVATIONS, Activation


class Product(NamedTuple):
    """A product with a learnt weight.

    Args:
        rows: the names of the weight's row blocks.
        axes: the letters of the size of a row block and of the size of what the weight is applied to.
        bias: whether there is a bias, of layers that have any.
        heads: into how many diagonal blocks each row block is divided. Default: as the option ``heads`` says where the
            axes are HH, else one
    """

    rows: tuple[str, ...]
    axes: str = "HH"
    bias: bool = True
    heads: int = 0


class Times(NamedTuple):
    """A product, or the letter of a state's size, that a cell has several times: what is given to `step` is a tuple.

    Args:
        what: the product or the letter.
        times: how often, from the cell's options by name.
    """

    what: Any
    times: Callable[[Any], int]


def lettered(names: Iterable[str] | Mapping[str, Any]) -> dict[str, Any]:
    """Each name and the letter of its size, H unless the names say another."""
    return dict(names) if isinstance(names, Mapping) else dict.fromkeys(names, "H")


def expanded(declared: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Each thing by itself; of those that there are several of the name is followed by a number, from 1.

    Raises:
        ValueError: the options say a negative number of them.
    """
    found = {}
    for name, what in declared.items():
        if not isinstance(what, Times):
            found[name] = what
            continue
        times = what.times(SimpleNamespace(**options))
        if times < 0:
            raise ValueError(f"there cannot be {times} of {name}: {', '.join(f'{k}={v}' for k, v in options.items())}")
        found |= {f"{name}{k + 1}": what.what for k in range(times)}
    return found


def grouped(declared: Mapping[str, Any], options: Mapping[str, Any], values: Iterable[Any]) -> Iterator[Any]:
    """Values of `expanded` things as `step` is given them: those of a `Times` as one tuple."""
    rest = iter(values)
    for name, what in declared.items():
        several = tuple(islice(rest, len(expanded({name: what}, options))))
        yield several if isinstance(what, Times) else several[0]


def spelled(cell: str, name: str, default: Any, value: Any) -> str:
    """An option's value as a word that `read` turns into it.

    Raises:
        TypeError: it is of another kind than the default.
    """
    if isinstance(default, Activation):
        if not isinstance(value, Activation) or ACTIVATIONS.get(value.name) is not value:
            raise TypeError(f"{cell}: {name} should be an activation of seqcells.cells.activations, got {value!r}")
        return value.name
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise TypeError(f"{cell}: {name} should be True or False, got {value!r}")
        return repr(value)
    kind = "a number" if isinstance(default, float) else "an integer"
    try:
        if isinstance(value, bool):
            raise TypeError
        return repr(float(value) if isinstance(default, float) else operator.index(value))
    except (TypeError, ValueError):
        raise TypeError(f"{cell}: {name} should be {kind}, got {value!r}") from None


def read(default: Any, word: str) -> Any:
    """The value of an option that a word says; ValueError where it says none."""
    if isinstance(default, Activation):
        if word not in ACTIVATIONS:
            raise ValueError(f"no activation {word!r}")
        return ACTIVATIONS[word]
    if isinstance(default, bool):
        if word not in ("True", "False"):
            raise ValueError(f"neither True nor False: {word!r}")
        return word == "True"
    return float(word) if isinstance(default, float) else int(word)
