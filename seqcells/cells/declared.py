"""The declarations of a cell: products, repeated products and states, sizes by letter, options."""

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
        axes: the letters of two sizes: of a row block, and of the operand. Default: "HH"
        bias: whether the product has a bias in layers with biases. Default: True
        heads: the number of diagonal blocks of each row block. Default: the option ``heads`` if the axes are HH, else 1
    """

    rows: tuple[str, ...]
    axes: str = "HH"
    bias: bool = True
    heads: int = 0


class Times(NamedTuple):
    """A product or state that a cell has several times; `step` gets a tuple of them.

    Args:
        what: the `Product`, or the letter of the state's size.
        times: a function of the cell's options, as attributes by name, that returns the number of repetitions.
    """

    what: Any
    times: Callable[[Any], int]


def lettered(names: Iterable[str] | Mapping[str, Any]) -> dict[str, Any]:
    """The letter of the size for each name: H, unless a mapping gives another letter."""
    return dict(names) if isinstance(names, Mapping) else dict.fromkeys(names, "H")


def expanded(declared: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """The declarations with each `Times` expanded: a repeated name gets a number at its end, beginning with 1.

    Raises:
        ValueError: the options give a negative number of repetitions.
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
    """The values of `expanded` declarations in the form for `step`: the values of a `Times` become one tuple."""
    rest = iter(values)
    for name, what in declared.items():
        several = tuple(islice(rest, len(expanded({name: what}, options))))
        yield several if isinstance(what, Times) else several[0]


def spelled(cell: str, name: str, default: Any, value: Any) -> str:
    """An option's value as a word, which `read` turns back into the value.

    Raises:
        TypeError: the value is of another kind than the default.
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
    """The value of an option from a word.

    Raises:
        ValueError: the word is no value of the default's kind.
    """
    if isinstance(default, Activation):
        if word not in ACTIVATIONS:
            raise ValueError(f"no activation {word!r}")
        return ACTIVATIONS[word]
    if isinstance(default, bool):
        if word not in ("True", "False"):
            raise ValueError(f"neither True nor False: {word!r}")
        return word == "True"
    return float(word) if isinstance(default, float) else int(word)
