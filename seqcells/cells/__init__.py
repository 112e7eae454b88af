"""The cells, each its equations in one file, and the registry that names them."""

from .base import Cell
from .gru import GRU
from .lstm import LSTM
from .peephole_lstm import PeepholeLSTM
from .rnn import RNNReLU, RNNTanh

REGISTRY: dict[str, type[Cell]] = {
    "lstm": LSTM,
    "gru": GRU,
    "rnn_tanh": RNNTanh,
    "rnn_relu": RNNReLU,
    "peephole_lstm": PeepholeLSTM,
}

RNN_BY_NONLINEARITY: dict[str, type[Cell]] = {"tanh": RNNTanh, "relu": RNNReLU}

__all__ = ["GRU", "LSTM", "REGISTRY", "RNN_BY_NONLINEARITY", "Cell", "PeepholeLSTM", "RNNReLU", "RNNTanh"]
