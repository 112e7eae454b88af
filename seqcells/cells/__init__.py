"""The cells, each its equations in one file, and the registry that names them."""

from collections.abc import Mapping
from types import MappingProxyType

from .base import Cell
from .block_gru import BlockGRU
from .cifg import CIFG
from .declared import Product, Times
from .gru import GRU
from .gru_reset_before import GRUResetBefore
from .indrnn import IndRNN
from .janet import JANET
from .jordan import Jordan
from .layer_norm_gru import LayerNormGRU
from .layer_norm_lstm import LayerNormLSTM
from .ligru import LiGRU
from .lstm import LSTM
from .mgu import MGU
from .mingru import MinGRU
from .multi_head_slstm import MultiHeadSLSTM
from .multiplicative_lstm import MultiplicativeLSTM
from .peephole_lstm import PeepholeLSTM
from .recurrent_highway import RecurrentHighway
from .rnn import RNNReLU, RNNTanh
from .slstm import SLSTM

BUILT_IN: Mapping[str, type[Cell]] = MappingProxyType(
    {
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
)
"""The cells whose kernels of one stage are printed into the package, by name."""

STAGED: Mapping[str, type[Cell]] = MappingProxyType(
    {
        cell.name: cell
        for cell in (
            GRUResetBefore,
            MGU,
            MultiplicativeLSTM,
            RecurrentHighway,
            LayerNormLSTM,
            LayerNormGRU,
            BlockGRU,
            MultiHeadSLSTM,
        )
    }
)
"""Those whose Triton kernels of several stages are, likewise."""

REGISTRY: dict[str, type[Cell]] = dict(BUILT_IN)
"""The cells that a name finds: those above, and all that `register` was given in this process."""

RNN_BY_NONLINEARITY: dict[str, type[Cell]] = {"tanh": RNNTanh, "relu": RNNReLU}


def register(cell: type[Cell]) -> None:
    """Give a cell its name in the registry, a configured one the name of the cell that it is of; the same class defined
    again, as in a notebook, replaces itself.

    Raises:
        ValueError: the name is another cell's.
    """
    cell = cell.base
    there = REGISTRY.setdefault(cell.name, cell)
    if (there.__module__, there.__qualname__) != (cell.__module__, cell.__qualname__):
        raise ValueError(f"the name {cell.name!r} is taken by {there.__module__}.{there.__qualname__}")
    REGISTRY[cell.name] = cell


def named(name: str) -> type[Cell]:
    """The cell of that name, in the registry; of a configured one the name says the options, ``cell[option=value]``.

    Raises:
        ValueError: the registry has no such cell, or the cell no such options.
    """
    key, bracket, words = name.partition("[")
    if key not in REGISTRY or (bracket and not words.endswith("]")):
        raise ValueError(f"unknown cell {name!r}: the registry has {', '.join(REGISTRY)}")
    return REGISTRY[key].with_words(words[:-1]).configured()


__all__ = [
    "BUILT_IN",
    "CIFG",
    "GRU",
    "JANET",
    "LSTM",
    "MGU",
    "REGISTRY",
    "RNN_BY_NONLINEARITY",
    "SLSTM",
    "STAGED",
    "BlockGRU",
    "Cell",
    "GRUResetBefore",
    "IndRNN",
    "Jordan",
    "LayerNormGRU",
    "LayerNormLSTM",
    "LiGRU",
    "MinGRU",
    "MultiHeadSLSTM",
    "MultiplicativeLSTM",
    "PeepholeLSTM",
    "Product",
    "RNNReLU",
    "RNNTanh",
    "RecurrentHighway",
    "Times",
    "named",
    "register",
]
