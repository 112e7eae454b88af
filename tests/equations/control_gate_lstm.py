from seqcells.cells import Cell
from seqcells.cells.activations import sigmoid, tanh


class ControlGateLSTM(Cell):
    """LSTM whose product reads an output with a gate of its own (torchrecurrent's MCLSTM, NIPS workshop 2017)."""

    name = "control_gate_lstm"
    gates, states = ("f", "i", "o", "m", "g"), ("v", "c")
    output = "h"

    @staticmethod
    def step(x, r, s, p):
        cell = sigmoid(x.f + r.f) * s.c + sigmoid(x.i + r.i) * tanh(x.g + r.g)
        squashed = tanh(cell)
        return sigmoid(x.m + r.m) * squashed, cell, sigmoid(x.o + r.o) * squashed
