"""The cells, each its equations in one file, and the registry that names them."""

from .base import Cell
from .cifg import CIFG
from .gru import GRU
from .indrnn import IndRNN
from .janet import JANET
from .jordan import Jordan
from .ligru import LiGRU
from .lstm import LSTM
from .mingru import MinGRU
from .peephole_lstm import PeepholeLSTM
from .rnn import RNNReLU, RNNTanh
from .slstm import SLSTM

REGISTRY: dict[str, type[Cell]] = {
    "lstm": LSTM,
    "gru": GRU,
    "rnn_tanh": RNNTanh,
    "rnn_relu": RNNReLU,
    "peephole_lstm": PeepholeLSTM,
    "cifg": CIFG,
    "janet": JANET,
    "ligru": LiGRU,
    "indrnn": IndRNN,
    "mingru": MinGRU,
    "jordan": Jordan,
    "slstm": SLSTM,
}

RNN_BY_NONLINEARITY: dict[str, type[Cell]] = {"tanh": RNNTanh, "relu": RNNReLU}


def register(cell: type[Cell]) -> None:
    """Give a cell its name in the registry; the same class defined again, as in a notebook, replaces itself.

    Raises:
        ValueError: the name is another cell's.
    """
    there = REGISTRY.setdefault(cell.name, cell)
    if (there.__module__, there.__qualname__) != (cell.__module__, cell.__qualname__):
        raise ValueError(f"the name {cell.name!r} is taken by {there.__module__}.{there.__qualname__}")
    REGISTRY[cell.name] = cell


__all__ = [
    "CIFG",
    "GRU",
    "JANET",
    "LSTM",
    "REGISTRY",
    "RNN_BY_NONLINEARITY",
    "SLSTM",
    "Cell",
    "IndRNN",
    "Jordan",
    "LiGRU",
    "MinGRU",
    "PeepholeLSTM",
    "RNNReLU",
    "RNNTanh",
    "register",
]
