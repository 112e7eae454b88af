"""Recurrent layers in place of torch.nn's: same parameters, same numbers, and what users have asked for since.

``LSTM``, ``GRU``, ``RNN`` and their cells follow the contract of torch.nn; every other cell's modules the
same one. ``swap(model)`` replaces torch's inside a model, ``unswap(model)`` puts them back. The parts, from the
top down: `modules`, `functional`, `call`, the backends, `cells`.
"""

from . import cells, functional
from .io.swap import swap, unswap
from .kernels.cpu import empty_cache
from .modules import tracing
from .modules.built_in import (
    CIFG,
    JANET,
    SLSTM,
    CIFGCell,
    IndRNN,
    IndRNNCell,
    JANETCell,
    Jordan,
    JordanCell,
    LiGRU,
    LiGRUCell,
    MinGRU,
    MinGRUCell,
    PeepholeLSTM,
    PeepholeLSTMCell,
    SLSTMCell,
)
from .modules.cell_modules import GRUCell, LSTMCell, RecurrentCell, RNNCell
from .modules.define import define
from .modules.echo_state import EchoStateNetwork
from .modules.hopfield import HopfieldNetwork, ModernHopfield
from .modules.layers import GRU, LSTM, RNN
from .modules.recurrent_layer import RecurrentLayer
from .modules.stack import Stack, StackedCells
from .modules.tree import ChildSumTreeLSTM
from .request.call import Choice
from .system.settings import Settings, current_settings, set_default_settings, settings
from .version import __version__

__all__ = [
    "CIFG",
    "GRU",
    "JANET",
    "LSTM",
    "RNN",
    "SLSTM",
    "CIFGCell",
    "ChildSumTreeLSTM",
    "Choice",
    "EchoStateNetwork",
    "GRUCell",
    "HopfieldNetwork",
    "IndRNN",
    "IndRNNCell",
    "JANETCell",
    "Jordan",
    "JordanCell",
    "LSTMCell",
    "LiGRU",
    "LiGRUCell",
    "MinGRU",
    "MinGRUCell",
    "ModernHopfield",
    "PeepholeLSTM",
    "PeepholeLSTMCell",
    "RNNCell",
    "RecurrentCell",
    "RecurrentLayer",
    "SLSTMCell",
    "Settings",
    "Stack",
    "StackedCells",
    "__version__",
    "cells",
    "current_settings",
    "define",
    "empty_cache",
    "functional",
    "set_default_settings",
    "settings",
    "swap",
    "tracing",
    "unswap",
]
