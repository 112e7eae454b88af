"""The cells, each with its equations in a file of its own, and the registry that finds cells by name.

Cells outside of `BUILT_IN` are imported at first use, such as ``seqcells.define(seqcells.cells.LEM)``.
"""

from collections.abc import Iterator, Mapping
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING

from . import activations, units
from .base import Cell
from .cifg import CIFG
from .declared import Product, Times
from .gru import GRU
from .indrnn import IndRNN
from .janet import JANET
from .jordan import Jordan
from .library import LIBRARY
from .ligru import LiGRU
from .lstm import LSTM
from .mingru import MinGRU
from .peephole_lstm import PeepholeLSTM
from .rnn import RNNReLU, RNNTanh
from .slstm import SLSTM

if TYPE_CHECKING:  # at run time these cells are imported at first use
    from .antisymmetric_rnn import AntisymmetricRNN as AntisymmetricRNN
    from .atr import ATR as ATR
    from .block_gru import BlockGRU as BlockGRU
    from .brc import BRC as BRC
    from .cfn import CFN as CFN
    from .continuous_time_lstm import ContinuousTimeLSTM as ContinuousTimeLSTM
    from .continuous_time_rnn import ContinuousTimeRNN as ContinuousTimeRNN
    from .control_gate_lstm import ControlGateLSTM as ControlGateLSTM
    from .cornn import CoRNN as CoRNN
    from .dsgu import DSGU as DSGU
    from .echo_state import EchoState as EchoState
    from .fast_grnn import FastGRNN as FastGRNN
    from .fast_rnn import FastRNN as FastRNN
    from .gated_antisymmetric_rnn import GatedAntisymmetricRNN as GatedAntisymmetricRNN
    from .gru_d import GRUD as GRUD
    from .gru_decay import GRUDecay as GRUDecay
    from .gru_reset_before import GRUResetBefore as GRUResetBefore
    from .intersection_rnn import IntersectionRNN as IntersectionRNN
    from .janet_beta import JANETBeta as JANETBeta
    from .layer_norm_gru import LayerNormGRU as LayerNormGRU
    from .layer_norm_lstm import LayerNormLSTM as LayerNormLSTM
    from .lem import LEM as LEM
    from .light_ru import LightRU as LightRU
    from .linear_mut1 import LinearMUT1 as LinearMUT1
    from .linear_mut2 import LinearMUT2 as LinearMUT2
    from .low_rank_fast_grnn import LowRankFastGRNN as LowRankFastGRNN
    from .memory_block_lstm import MemoryBlockLSTM as MemoryBlockLSTM
    from .mgu import MGU as MGU
    from .mingru_log import MinGRULog as MinGRULog
    from .minimal_rnn import MinimalRNN as MinimalRNN
    from .minlstm import MinLSTM as MinLSTM
    from .minlstm_log import MinLSTMLog as MinLSTMLog
    from .miru1 import MiRU1 as MiRU1
    from .miru2 import MiRU2 as MiRU2
    from .multi_head_slstm import MultiHeadSLSTM as MultiHeadSLSTM
    from .multiplicative_lstm import MultiplicativeLSTM as MultiplicativeLSTM
    from .mut1 import MUT1 as MUT1
    from .mut2 import MUT2 as MUT2
    from .mut3 import MUT3 as MUT3
    from .nas import NAS as NAS
    from .nbrc import NBRC as NBRC
    from .original_lstm import OriginalLSTM as OriginalLSTM
    from .ran import RAN as RAN
    from .recurrent_highway import RecurrentHighway as RecurrentHighway
    from .residual_lstm import ResidualLSTM as ResidualLSTM
    from .scrn import SCRN as SCRN
    from .sgrn import SGRN as SGRN
    from .sgu import SGU as SGU
    from .star import STAR as STAR
    from .tau_gru import TauGRU as TauGRU
    from .tgru import TGRU as TGRU
    from .tlstm import TLSTM as TLSTM
    from .trnn import TRNN as TRNN
    from .ugrnn import UGRNN as UGRNN
    from .uncoupled_recurrent_highway import UncoupledRecurrentHighway as UncoupledRecurrentHighway
    from .unicornn import UnICORNN as UnICORNN
    from .working_memory_lstm import WorkingMemoryLSTM as WorkingMemoryLSTM

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

AHEAD_OF_TIME = LSTM, GRU, RNNTanh, RNNReLU, PeepholeLSTM
"""The cells of `BUILT_IN` that the CPU engine is built with. `seqcells.derive.__main__` adds two cells to them."""

STAGED = (
    "GRUResetBefore",
    "MGU",
    "MultiplicativeLSTM",
    "RecurrentHighway",
    "LayerNormLSTM",
    "LayerNormGRU",
    "BlockGRU",
    "MultiHeadSLSTM",
)
"""The names of the classes in `LIBRARY` whose Triton kernels of several stages are printed into the package."""

REGISTRY: dict[str, type[Cell]] = dict(BUILT_IN)
"""The cells that can be found by name: `BUILT_IN`, and all cells that this process has passed to `register`."""

_REPLACED: dict[str, list[type[Cell]]] = {}
"""Former classes of a name, replaced by a class of the same name and module, for instance when a notebook cell reruns.

Graphs that were made with a former class still find it.
"""

RNN_BY_NONLINEARITY: dict[str, type[Cell]] = {"tanh": RNNTanh, "relu": RNNReLU}


def register(cell: type[Cell]) -> None:
    """Enter a cell into the registry by its name; for a configured cell, its base cell is entered.

    A class that is defined again, as in a notebook, replaces the earlier class. Layers and graphs that were made with
    the earlier class keep it.

    Raises:
        ValueError: the name belongs to another cell.
    """
    cell = cell.base
    there = REGISTRY.setdefault(cell.name, cell)
    if (there.__module__, there.__qualname__) != (cell.__module__, cell.__qualname__):
        raise ValueError(f"the name {cell.name!r} is taken by {there.__module__}.{there.__qualname__}")
    if there is not cell:
        before = _REPLACED.setdefault(cell.name, [])
        _REPLACED[cell.name] = [each for each in before if each not in (cell, there)] + [there]
    REGISTRY[cell.name] = cell


def versions(name: str) -> Iterator[type[Cell]]:
    """The cell of this name with the options that the name gives, then the former cells of the name, latest first.

    Former cells without such options are left out.

    Raises:
        ValueError: the registry has no cell of this name.
    """
    key, _, words = name.partition("[")
    _check_known(key, name)
    for cell in (REGISTRY[key], *reversed(_REPLACED.get(key, []))):
        try:
            yield cell.with_words(words[:-1]).configured()
        except (TypeError, ValueError):
            continue


def named(name: str) -> type[Cell]:
    """The cell of this name in the registry; the name of a configured cell is ``cell[option=value]``.

    Raises:
        ValueError: the registry has no such cell, or the cell has no such options.
    """
    key, bracket, words = name.partition("[")
    _check_known("" if bracket and not words.endswith("]") else key, name)
    return REGISTRY[key].with_words(words[:-1]).configured()


def _check_known(key: str, name: str) -> None:
    if key not in REGISTRY:  # a graph may be loaded before its cell was imported
        for found in (getattr(import_module(f".{file}", __name__), each) for each, file in LIBRARY.items()):
            if found.name == key:
                register(found)
                return
        words = "one's own cell is there once its module is imported"
        raise ValueError(f"unknown cell {name!r}: the registry has {', '.join(REGISTRY)}; {words}")


def __getattr__(name: str) -> type[Cell]:
    """Import a cell of `LIBRARY`; raises an AttributeError if `LIBRARY` has no cell of this name."""
    if name not in LIBRARY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    cell: type[Cell] = getattr(import_module(f".{LIBRARY[name]}", __name__), name)
    return cell


def __dir__() -> list[str]:
    return sorted({*globals(), *LIBRARY})


__all__ = [
    "AHEAD_OF_TIME",
    "BUILT_IN",
    "CIFG",
    "GRU",
    "JANET",
    "LIBRARY",
    "LSTM",
    "REGISTRY",
    "RNN_BY_NONLINEARITY",
    "SLSTM",
    "STAGED",
    "Cell",
    "IndRNN",
    "Jordan",
    "LiGRU",
    "MinGRU",
    "PeepholeLSTM",
    "Product",
    "RNNReLU",
    "RNNTanh",
    "Times",
    "activations",
    "named",
    "register",
    "units",
    "versions",
]
__all__ += LIBRARY  # pyright: ignore[reportUnsupportedDunderAll]  # `__getattr__` finds these names
