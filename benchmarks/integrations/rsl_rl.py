"""rsl_rl's memory on trajectories of 32 environments, split and padded as in rsl_rl's PPO."""

import torch
from rsl_rl.modules.rnn import RNN
from rsl_rl.utils import split_and_pad_trajectories
from torch import nn

from .case import Case, Step, descent

STEPS, ENVIRONMENTS, FEATURES, UNITS = 64, 32, 48, 128


def _memory(kind: str):
    def make():
        memory, head = RNN(FEATURES, UNITS, 1, kind), nn.Linear(UNITS, 12)
        both = nn.ModuleList([memory, head])

        def prepare() -> Step:
            seen = torch.randn(STEPS, ENVIRONMENTS, FEATURES)
            padded, masks = split_and_pad_trajectories(seen, torch.rand(STEPS, ENVIRONMENTS, 1) < 1 / 25)
            states = tuple(torch.zeros(1, padded.shape[1], UNITS) for _ in range(2))

            def loss() -> torch.Tensor:
                hidden = states if kind == "lstm" else states[0]
                return head(memory(padded, masks, hidden)).square().mean()

            return descent(both, loss)

        return both, prepare

    return make


CASES = [Case("memory, LSTM(128)", _memory("lstm")), Case("memory, GRU(128)", _memory("gru"))]
