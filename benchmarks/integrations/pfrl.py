"""pfrl's recurrent Q function on 32 episodes of up to 100 steps, packed as pfrl's agents pack episodes."""

import torch
from pfrl.nn import RecurrentSequential
from pfrl.utils.recurrent import pack_and_forward
from torch import nn

from .case import Case, Step, descent

EPISODES, STEPS, FEATURES, UNITS = 32, 100, 8, 128


def _q_function(kind: type[nn.RNNBase]):
    def make():
        layers = nn.Linear(FEATURES, 64), nn.ReLU(), kind(64, UNITS), nn.Linear(UNITS, 4)
        model = RecurrentSequential(*layers)

        def prepare() -> Step:
            lengths = torch.randint(1, STEPS + 1, (EPISODES,)).sort(descending=True).values
            episodes = [torch.randn(int(length), FEATURES) for length in lengths]
            return descent(model, lambda: pack_and_forward(model, episodes, None)[0].square().mean())

        return model, prepare

    return make


CASES = [
    Case("Q function, LSTM(128)", _q_function(nn.LSTM), adapted=True),
    Case("Q function, GRU(128)", _q_function(nn.GRU), adapted=True),
]
