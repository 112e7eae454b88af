"""Adapter for sb3-contrib's RecurrentPPO: one call of a layer takes a batch of sequences with episode starts.

Without the adapter, sb3-contrib loops over the time steps.
"""

from typing import Any

from torch import Tensor

from ...modules.recurrent_layer import RecurrentLayer
from .base import Theirs


class RecurrentActorCriticPolicy(Theirs):
    """A mixin for the policy of sb3-contrib 2, whose own `_process_sequence` loops over time steps."""

    __layers__: tuple[str, ...] = "lstm_actor", "lstm_critic"

    def _process_sequence(self, features: Tensor, lstm_states: Any, episode_starts: Tensor, lstm: Any) -> Any:
        """Features (N·T, F) of N sequences, states (L, N, H) each, starts (N·T,) → outputs (N·T, H), states.

        An episode start is a reset before its time step: the states become zeros. Torch's operators have no resets.
        """
        if not isinstance(lstm, RecurrentLayer) or lstm.backend == "torch":
            return super()._process_sequence(features, lstm_states, episode_starts, lstm)
        count = lstm_states[0].shape[1]
        sequences = features.reshape(count, -1, lstm.input_size).transpose(0, 1)
        starts = episode_starts.reshape(count, -1).transpose(0, 1) != 0
        output, states = lstm(sequences, lstm_states, reset=starts)
        return output.transpose(0, 1).flatten(0, 1), states
