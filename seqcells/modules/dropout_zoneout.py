"""Regularisation of a layer's states, for any cell: recurrent dropout and zoneout.

Each option is a transformation of the cell (`seqcells.derive.transformed_cells`) that reads masks. The masks are drawn
here, by torch's generator, so they are the same for every backend. Gradients of any order, graphs and transforms work
as for any cell.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import dropout

from ..cells import Cell
from ..derive.transformed_cells import MASK, WITH, ZONEOUT, transformed
from ..request import checks
from ..request.weights import Weights
from ..system.untraced import constant
from .arguments import Arguments


class Regularised(Arguments):
    """The part of a layer with these options. Users may assign them at any time, like torch.nn's ``dropout``."""

    recurrent_dropout: float = 0.0
    zoneout: float | Mapping[str, float] = 0.0
    _own_state = (*Arguments._own_state, "recurrent_dropout", "zoneout")

    def _regularise(self, recurrent_dropout: Any, zoneout: Any) -> None:
        """Check and set the options.

        Raises:
            ValueError: a value is no probability, the cell has no such state, or no product of its hidden state.
        """
        _check("recurrent_dropout", recurrent_dropout)
        for probability in zoneout.values() if isinstance(zoneout, Mapping) else [zoneout]:
            _check("zoneout", probability)
        if recurrent_dropout:
            self.recurrent_dropout = float(recurrent_dropout)
        if zoneout:
            self.zoneout = dict(zoneout) if isinstance(zoneout, Mapping) else float(zoneout)
        if recurrent_dropout or zoneout:
            states = self.zoneout if isinstance(self.zoneout, Mapping) else self._zoned()
            _transformed(self.cell, self.proj_size, bool(recurrent_dropout), states)

    def _beyond_torch(self) -> list[str]:
        return [name for name in ("recurrent_dropout", "zoneout", "learn_hx") if getattr(self, name)]

    def _is_regularised(self) -> bool:
        """Whether an option affects a call in the module's mode."""
        return bool((self.training and self.recurrent_dropout) or self.zoneout)

    def _zoned(self) -> dict[str, float]:
        """The states with zoneout, in the cell's order, and their probabilities."""
        states = self.cell.states
        given = self.zoneout if isinstance(self.zoneout, Mapping) else dict.fromkeys(states, self.zoneout)
        order = *(name for name in states if name in given), *(name for name in given if name not in states)
        return {name: given[name] for name in order if given[name]}

    def _cell_of_call(self) -> type[Cell]:
        """The cell that a call runs, in the module's mode."""
        if not self._is_regularised():
            return self.cell
        drops = bool(self.training and self.recurrent_dropout)
        return _transformed(self.cell, self.proj_size, drops, self._zoned())

    def _weights_of_call(self, weights: Sequence[Weights]) -> Sequence[Weights]:
        """The weights for `_cell_of_call`. A transformed cell has the projection's weight among its own parameters."""
        if not self.proj_size or not self._is_regularised():
            return weights
        names = _transformed(self.cell, self.proj_size, False, ()).own_names()
        return [w.with_projection(self.cell, names) for w in weights]

    def _masks(self, input: Tensor, steps: int, batch: int) -> dict[str, Tensor]:
        """The masks of all layers and directions, by their streams' names.

        In training they are drawn. In evaluation a mask is its expectation, the probability.
        """
        paths, sizes = self.num_layers * (2 if self.bidirectional else 1), self._state_sizes()
        found = {}
        if self.training and self.recurrent_dropout:
            found[MASK] = dropout(input.new_ones((paths, batch, sizes[0])), self.recurrent_dropout)
        of_states = dict(zip(self.cell.states, sizes, strict=True))
        for name, probability in self._zoned().items():
            shape = paths, steps, batch, of_states[name]
            mask = input.new_full((1,), probability).expand(shape)
            found[ZONEOUT.format(name)] = torch.bernoulli(mask) if self.training else mask
        return found

    def _told_others(self) -> str:
        """The options in use, for the module's ``repr``."""
        return "".join(f", {name}={getattr(self, name)}" for name in self._beyond_torch())


def _transformed(cell: type[Cell], proj_size: int, drops: bool, zoned: Iterable[str]) -> type[Cell]:
    """The cell with the transformations that the options ask for. ``zoned`` are the states with zoneout."""
    ways = [f"projection({proj_size})"] if proj_size else []
    ways += ["recurrent_dropout"] if drops else []
    names = ",".join(zoned)
    ways += [f"zoneout({names})"] if names else []
    if ways:
        _make(cell, WITH.join(ways))
    for way in ways:  # torch.compile can trace this loop, but not the creation of classes
        cell = cell.transformations[way]
    return cell


@constant
def _make(cell: type[Cell], ways: str) -> None:
    transformed(cell, *ways.split(WITH))


def _check(name: str, value: Any) -> None:
    if not checks.is_number(value) or not 0 <= value <= 1:
        raise ValueError(f"{name} should be a number in range [0, 1] representing a probability, got {value!r}")
