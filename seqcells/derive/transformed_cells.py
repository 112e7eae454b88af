"""Cells made from other cells: the same equations, with changed states or inputs, by additional streams.

Each transformation takes any cell and returns a cell whose name says how it was made. A graph finds the cell by this
name in another process. A backend that runs cells with streams also runs transformed cells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from .. import cells
from ..cells import Cell
from ..cells.declared import expanded, grouped

WITH = " with "
"""The separator between the name of a cell and the name of a transformation."""
MASK = "recurrent_mask"
"""The stream of `recurrent_dropout`."""
ZONEOUT = "zoneout_{}"
"""The name of `zoneout`'s stream for a state."""


def projection(cell: type[Cell], size: str) -> type[Cell]:
    """The cell whose hidden state is projected to ``size`` units: see `Cell.projected`."""
    return _derived(cell.projected().configured(proj_size=int(size)), {})


def recurrent_dropout(cell: type[Cell]) -> type[Cell]:
    """The cell whose products read the hidden state multiplied by a mask, one mask for each sequence.

    The source is Gal & Ghahramani 2016, arXiv:1512.05287. The masked products are the recurrent product, and each
    further product whose operand depends on the hidden state without another product between. An example is the
    candidate of a GRU that is reset before the product. All other expressions read the unmasked state.

    Raises:
        ValueError: the cell has no such product.
    """
    first, size = next(iter(cell.state_sizes.items()))
    masked = _products_of(cell, first)
    if not masked and not cell.recurrent_gates:
        raise ValueError(f"the {cell.name} cell has no product of its hidden state, to which recurrent_dropout applies")

    def recurrent_operand(x: Any, s: Any) -> Any:
        return getattr(x, MASK) * cell.recurrent_operand(_own(cell, x), s)

    def step(x: Any, r: Any, s: Any, p: Any) -> Any:
        each = zip(expanded(cell.products, cell.options), _flat(p[len(p) - len(cell.products) :]), strict=True)
        mask = getattr(x, MASK)
        made = [_applied_to(product, mask) if name in masked else product for name, product in each]
        p = p._replace(**dict(zip(cell.products, grouped(cell.products, cell.options, made), strict=True)))
        return cell.step(_own(cell, x), r, s, p)

    own = {"recurrent_operand": staticmethod(recurrent_operand), "step": staticmethod(step)}
    return _derived(cell, {**own, "streams": {**cell.streams, MASK: f"B{size}"}})


def zoneout(cell: type[Cell], *states: str) -> type[Cell]:
    """The cell whose new states are mask · old + (1 - mask) · new, with one mask for each state in ``states``.

    The source is zoneout (Krueger et al. 2017, arXiv:1606.01305).

    Raises:
        ValueError: the cell has no such state.
    """
    for name in states:
        if name not in cell.state_sizes:
            raise ValueError(f"zoneout of {name}, but the states of the {cell.name} cell are {', '.join(cell.states)}")

    def step(x: Any, r: Any, s: Any, p: Any) -> Any:
        results = cell.step(_own(cell, x), r, s, p)
        new = [*_flat(results if isinstance(results, tuple) else (results,))]
        for place, (name, old) in enumerate(zip(cell.states, _flat(s), strict=True)):
            if name in states:
                mask = getattr(x, ZONEOUT.format(name))
                new[place] = mask * old + (1 - mask) * new[place]
        return tuple(new)

    streams = {**cell.streams, **{ZONEOUT.format(name): f"TB{cell.state_sizes[name]}" for name in states}}
    return _derived(cell, {"step": staticmethod(step), "streams": streams})


def weights_made(cell: type[Cell]) -> type[Cell]:
    """The cell that is given the weights of its products ready-made, instead of the learnt parameters.

    The caller computes the weights from the parameters before the loop, by operators that autograd knows.

    Raises:
        ValueError: the cell multiplies by the learnt weights.
    """
    if cell.weights is Cell.weights:
        raise ValueError(f"the {cell.name} cell multiplies by its learnt weights")
    return _derived(cell, {"weights": Cell.weights, "projection": cell.projection})


def streams_of_rows(cell: type[Cell]) -> type[Cell]:
    """The cell whose shared streams have a batch axis: a value for each sequence, instead of one for all of a step.

    Raises:
        ValueError: the cell has no stream that all sequences of a step share.
    """
    if not cell.shared:
        raise ValueError(f"the {cell.name} cell has no streams that all sequences of a step share")
    streams = {name: f"TB{axes[1:]}" if name in cell.shared else axes for name, axes in cell.streams.items()}
    return _derived(cell, {"streams": streams, "projection": cell.projection})


def for_engines(cell: type[Cell]) -> type[Cell]:
    """The cell in the form that engines and operators take: with `weights_made` and `streams_of_rows` where needed."""
    words = ["weights_made"] * (cell.weights is not Cell.weights) + ["streams_of_rows"] * bool(cell.shared)
    return transformed(cell, *words) if words else cell


TRANSFORMATIONS: dict[str, Callable[..., type[Cell]]] = {
    "projection": projection,
    "recurrent_dropout": recurrent_dropout,
    "zoneout": zoneout,
    "weights_made": weights_made,
    "streams_of_rows": streams_of_rows,
}


def transformed(cell: type[Cell], *words: str) -> type[Cell]:
    """The cell after the transformations that ``words`` name in order, such as ``zoneout(h,c)``.

    The same words always give the same class.

    Raises:
        ValueError: there is no such transformation, or it does not apply to the cell.
    """
    for way in words:
        there = cell.transformations
        if way not in there:
            kind, _, arguments = way.removesuffix(")").partition("(")
            if kind not in TRANSFORMATIONS:
                raise ValueError(f"nothing transforms a cell by {way!r}: there are {', '.join(TRANSFORMATIONS)}")
            made = TRANSFORMATIONS[kind](cell, *filter(None, arguments.split(",")))
            made.name, made.base, made.words = f"{cell.name}{WITH}{way}", cell.base, cell.words
            there.setdefault(way, made)  # another thread may have made the class meanwhile
        cell = there[way]
    return cell


def cell_of(name: str) -> type[Cell]:
    """The cell of this name: a cell that `seqcells.cells.named` finds, transformed as the name says.

    Raises:
        ValueError: there is no such cell.
    """
    base, *words = name.split(WITH)
    return transformed(cells.named(base), *words)


def cells_of(name: str) -> Iterator[type[Cell]]:
    """The cell of this name, then earlier cells that were defined under the name: see `seqcells.cells.versions`."""
    base, *words = name.split(WITH)
    for cell in cells.versions(base):
        try:
            yield transformed(cell, *words)
        except ValueError:
            continue  # a transformation does not apply to this version


def _derived(cell: type[Cell], own: dict[str, Any]) -> type[Cell]:
    """A subclass of a cell with some attributes replaced."""
    if "step" in own:  # so that tracebacks and printed equations refer to the author's source
        own["step"].__func__.__wrapped__ = cell.step
    own = {"projection": False, **own, "name": cell.name, "base": cell.base, "__module__": cell.__module__}
    return type(cell.__name__, (cell,), own)


def _products_of(cell: type[Cell], state: str) -> set[str]:
    """The names of the products whose operands depend on a state without another product or reduction between."""
    from .expressions import DerivationError
    from .named_values import operands

    try:
        return {name for name, leaves in operands(cell) if f"s.{state}" in leaves}
    except DerivationError:
        return set()


def _own(cell: type[Cell], x: Any) -> Any:
    """The part of the argument ``x`` that the original cell reads; a transformation's streams come after it."""
    return cell.X(*x[: len(cell.X._fields)])


def _applied_to(product: Callable[[Any], Any], mask: Any) -> Callable[[Any], Any]:
    return lambda v: product(mask * v)


def _flat(values: Sequence[Any]) -> list[Any]:
    """The values with nested tuples flattened by one level."""
    return [each for value in values for each in (value if isinstance(value, tuple) else (value,))]
