"""Replacements for torch.nn's recurrent layers: the same parameters, the same results, and features users asked for.

``LSTM``, ``GRU``, ``RNN`` and their cell modules have the interface of torch.nn's, and so have the modules of all other
cells. ``swap(model)`` replaces torch.nn's modules inside a model, and ``unswap(model)`` restores them. The parts, from
the top down: `modules`, `functional`, `call`, the backends, `cells`.
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
