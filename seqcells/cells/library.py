"""The cells that are imported when somebody asks for one: nobody needs them all."""

from collections.abc import Mapping
from types import MappingProxyType

LIBRARY: Mapping[str, str] = MappingProxyType(
    {
        "ATR": "atr",
        "AntisymmetricRNN": "antisymmetric_rnn",
        "BRC": "brc",
        "CFN": "cfn",
        "CoRNN": "cornn",
        "ControlGateLSTM": "control_gate_lstm",
        "DSGU": "dsgu",
        "FastGRNN": "fast_grnn",
        "FastRNN": "fast_rnn",
        "GatedAntisymmetricRNN": "gated_antisymmetric_rnn",
        "IntersectionRNN": "intersection_rnn",
        "JANETBeta": "janet_beta",
        "LEM": "lem",
        "LightRU": "light_ru",
        "LinearMUT1": "linear_mut1",
        "LinearMUT2": "linear_mut2",
        "LowRankFastGRNN": "low_rank_fast_grnn",
        "MUT1": "mut1",
        "MUT2": "mut2",
        "MUT3": "mut3",
        "MemoryBlockLSTM": "memory_block_lstm",
        "MiRU1": "miru1",
        "MiRU2": "miru2",
        "MinimalRNN": "minimal_rnn",
        "NAS": "nas",
        "NBRC": "nbrc",
        "OriginalLSTM": "original_lstm",
        "RAN": "ran",
        "ResidualLSTM": "residual_lstm",
        "SCRN": "scrn",
        "SGRN": "sgrn",
        "SGU": "sgu",
        "STAR": "star",
        "TGRU": "tgru",
        "TLSTM": "tlstm",
        "TRNN": "trnn",
        "TauGRU": "tau_gru",
        "UGRNN": "ugrnn",
        "UnICORNN": "unicornn",
        "UncoupledRecurrentHighway": "uncoupled_recurrent_highway",
        "WorkingMemoryLSTM": "working_memory_lstm",
    }
)
"""Their names, and the modules of this package that they are in."""
