"""fastai's AWD_LSTM as a language model: 32 texts of 70 words; each step drops weights."""

import torch
from fastai.text.models.awdlstm import AWD_LSTM
from torch import nn

from .case import Case, Step, descent

BATCH, WORDS, VOCABULARY = 32, 70, 2000


def _language_model():
    model, head = AWD_LSTM(VOCABULARY, 128, 256, 3), nn.Linear(128, VOCABULARY)
    both = nn.ModuleList([model, head])

    def prepare() -> Step:
        words = torch.randint(VOCABULARY, (BATCH, WORDS + 1))

        def loss() -> torch.Tensor:
            model.reset()  # so that each step starts from the same state
            found = head(model(words[:, :-1])).flatten(0, 1)
            return nn.functional.cross_entropy(found, words[:, 1:].flatten())

        return descent(both, loss)

    return both, prepare


CASES = [Case("AWD_LSTM(256), 3 layers", _language_model)]
