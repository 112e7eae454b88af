"""sb3-contrib's RecurrentPPO: a batch of sequences with its episode starts in one call of a layer, without a loop."""

from typing import Any

from torch import Tensor

from ..modules.recurrent_layer import RecurrentLayer
from .others import Theirs


class RecurrentActorCriticPolicy(Theirs):
    """For the policy of that name, after sb3-contrib 2: `_process_sequence` is what loops over steps there."""

    __layers__: tuple[str, ...] = "lstm_actor", "lstm_critic"

    def _process_sequence(self, features: Tensor, lstm_states: Any, episode_starts: Tensor, lstm: Any) -> Any:
        """Features (N·T, F) of N sequences, states (L, N, H) each, starts (N·T,) → outputs (N·T, H), states.

        A start is a reset before its step: the states become zeros. Torch's operators have none.
        """
        if not isinstance(lstm, RecurrentLayer) or lstm.backend == "torch":
            return super()._process_sequence(features, lstm_states, episode_starts, lstm)
        count = lstm_states[0].shape[1]
        sequences = features.reshape(count, -1, lstm.input_size).transpose(0, 1)
        starts = episode_starts.reshape(count, -1).transpose(0, 1) != 0
        output, states = lstm(sequences, lstm_states, reset=starts)
        return output.transpose(0, 1).flatten(0, 1), states
