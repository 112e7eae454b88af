"""speechbrain's recurrent parts: 8 utterances of 200 frames with lengths, and its decoder with attention."""

import torch
from speechbrain.lobes.models.CRDNN import CRDNN
from speechbrain.nnet.RNN import GRU, LSTM, AttentionalRNNDecoder
from torch import nn

from .case import Case, Step, descent

BATCH, FRAMES, FEATURES, UNITS, TOKENS = 8, 200, 40, 256, 30


def _encoder(kind: type[nn.Module]):
    def make():
        options = {"hidden_size": UNITS, "num_layers": 2, "bidirectional": True}
        model = kind(input_shape=[None, None, FEATURES], **options)

        def prepare() -> Step:
            x, lengths = torch.randn(BATCH, FRAMES, FEATURES), torch.linspace(0.3, 1, BATCH)
            return descent(model, lambda: model(x, lengths=lengths)[0].square().mean())

        return model, prepare

    return make


def _crdnn():
    sizes = {"rnn_neurons": UNITS, "rnn_layers": 2, "dnn_neurons": UNITS, "cnn_channels": (16, 32)}
    model = CRDNN(input_shape=[BATCH, FRAMES, FEATURES], rnn_class=LSTM, rnn_bidirectional=True, dropout=0.0, **sizes)

    def prepare() -> Step:
        x = torch.randn(BATCH, FRAMES, FEATURES)
        return descent(model, lambda: model(x).square().mean())

    return model, prepare


def _decoder():
    sizes = {"hidden_size": UNITS, "attn_dim": 64, "enc_dim": 64, "input_size": 64, "channels": 10, "kernel_size": 15}
    model = AttentionalRNNDecoder(rnn_type="gru", attn_type="location", num_layers=1, **sizes)

    def prepare() -> Step:
        encoded, told = torch.randn(BATCH, FRAMES // 4, 64), torch.randn(BATCH, TOKENS, 64)
        return descent(model, lambda: model(told, encoded, torch.ones(BATCH))[0].square().mean())

    return model, prepare


CASES = [
    Case("LSTM(256), 2 layers, both directions", _encoder(LSTM)),
    Case("GRU(256), 2 layers, both directions", _encoder(GRU)),
    Case("CRDNN, LSTM(256)", _crdnn),
    Case("decoder with attention, GRU cell(256)", _decoder),
]
