"""The modules that the contract is tested on, from torch.nn and from seqcells."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import seqcells

T, N, IN, H = 5, 3, 4, 6

LAYERS = {
    "plain": {},
    "layers": {"num_layers": 3},
    "no-bias": {"bias": False, "num_layers": 2},
    "bidirectional": {"bidirectional": True},
    "all": {"num_layers": 2, "bidirectional": True, "batch_first": True, "dropout": 0.3, "dtype": torch.float64},
}
KINDS = {
    **{f"{kind}-{name}": (kind, settings) for kind in ("LSTM", "GRU", "RNN") for name, settings in LAYERS.items()},
    "LSTM-proj": ("LSTM", {"proj_size": 2}),
    "LSTM-proj-all": ("LSTM", {"proj_size": 2, "bias": False, **LAYERS["all"]}),
    "RNN-relu": ("RNN", {"nonlinearity": "relu", "num_layers": 2}),
    "RNN-positional": ("RNN", {"positional": (2, "relu", False, True, 0.1, True)}),
    "LSTM-positional": ("LSTM", {"positional": (2, False, True, 0.1, True, 3)}),
    "GRU-positional": ("GRU", {"positional": (2, False, True, 0.1, True)}),
    **{f"{kind}Cell": (f"{kind}Cell", {}) for kind in ("LSTM", "GRU", "RNN")},
    **{f"{kind}Cell-no-bias": (f"{kind}Cell", {"bias": False}) for kind in ("LSTM", "GRU", "RNN")},
    "RNNCell-relu": ("RNNCell", {"nonlinearity": "relu"}),
    "RNNCell-positional": ("RNNCell", {"positional": (False, "relu")}),
}
each_module = pytest.mark.parametrize(("kind", "settings"), KINDS.values(), ids=KINDS)
each_layer = pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
each_backend = pytest.mark.parametrize("backend", ["auto", "reference"])


def make(library, kind, settings, seed=0):
    torch.manual_seed(seed)
    settings = dict(settings)
    return getattr(library, kind)(IN, H, *settings.pop("positional", ()), **settings)


def both(kind, settings):
    """torch.nn's module and ours, made from one seed."""
    return make(nn, kind, settings), make(seqcells, kind, settings)


def example(module, seed=1):
    size = (N, IN) if hasattr(module, "weight_ih") else (T, N, IN)
    dtype = next(module.parameters()).dtype
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def run(module, input=None):
    with torch.no_grad():
        return module.eval()(example(module) if input is None else input)


def assert_same(ours, theirs):
    assert_close(run(ours), run(theirs))


class Tagger(nn.Module):
    """A model with recurrent layers and cells at every depth, some of them used twice."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(20, 6)
        self.encoder = nn.ModuleDict({"lstm": nn.LSTM(6, 5, num_layers=2, bidirectional=True, dropout=0.2)})
        self.stack = nn.ModuleList([nn.GRU(10, 8), nn.Sequential(nn.RNN(8, 8, 1, "relu"))])
        self.again = self.stack[0]
        self.cells = nn.ModuleList([nn.LSTMCell(8, 8), nn.GRUCell(8, 8), nn.RNNCell(8, 8)])
        self.head = nn.Linear(8, 3)

    def forward(self, words):
        x = self.encoder["lstm"](self.embedding(words))[0]
        x = self.again(x)[0]
        x = self.stack[1][0](x)[0]
        lstm, gru, rnn = self.cells
        h, c = lstm(x[-1])
        return self.head(rnn(gru(h) + c))


NAMES = {"encoder.lstm", "stack.0", "stack.1.0", "again", "cells.0", "cells.1", "cells.2"}


def words(seed=0):
    return torch.randint(20, (7, 4), generator=torch.Generator().manual_seed(seed))
