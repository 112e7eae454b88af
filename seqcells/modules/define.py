"""Makes the layer class and the cell module class of a cell."""

import sys
from collections.abc import Callable
from functools import partial

from .. import cells
from ..cells import Cell
from .cell_modules import RecurrentCell
from .layers import GRU, LSTM, RNN, UnprojectedLayer
from .recurrent_layer import RecurrentLayer


def define(cell: type[Cell]) -> tuple[type[RecurrentLayer], type[RecurrentCell]]:
    """The layer and the cell module of a cell: ``PeepholeLSTM, PeepholeLSTMCell = define(cells.PeepholeLSTM)``.

    The classes get the cell's name without a final ``Step``: ``Leaky, LeakyCell = define(LeakyStep)``. A call replaces
    two class statements, which type checkers understand better::

        class PeepholeLSTM(RecurrentLayer):
            cell = cells.PeepholeLSTM

        class PeepholeLSTMCell(RecurrentCell):
            cell = cells.PeepholeLSTM

    The cell may be your own. Its kernels are compiled at first use. The classes' ``__module__`` is the calling module,
    where pickle looks for them.

    Raises:
        ValueError: another cell has the cell's name.
    """
    base = RecurrentLayer if cell.projection else UnprojectedLayer
    module = sys._getframe(1).f_globals.get("__name__", __name__)
    made, own = [], cell.__name__.removesuffix("Step") or cell.__name__
    for kind, name, what in ((base, own, "Layers"), (RecurrentCell, f"{own}Cell", "One step")):
        doc = f"{what} of this cell; arguments as `{kind.__name__}`.\n\n{cell.__doc__}"
        made.append(type(name, (kind,), {"cell": cell, "__module__": module, "__doc__": doc}))
    return made[0], made[1]


def layer_of(cell: type[Cell]) -> Callable[..., RecurrentLayer]:
    """A function that makes layers of a cell: our `LSTM`, `GRU` or `RNN` for torch.nn's cells, else a new class."""
    if cell is cells.RNNReLU:
        return partial(RNN, nonlinearity="relu")
    return {cells.LSTM: LSTM, cells.GRU: GRU, cells.RNNTanh: RNN}.get(cell) or define(cell)[0]
