from .activations import sigmoid, tanh
from .base import Cell


class ControlGateLSTM(Cell):
    """LSTM whose recurrent product reads an output v with a gate m of its own, torchrecurrent's MCLSTM.

        f, i, o, m = σ(W x + U v),  g = tanh(W_g x + U_g v)
        c' = f c + i g
        h' = o tanh(c'),  v' = m tanh(c')

    The states are v and c; the output h is no state. torchrecurrent names a paper of a NIPS workshop of 2017 as its
    source. The mass-conserving LSTM of the same initials is another cell.
    """

    name = "control_gate_lstm"
    gates, states = ("f", "i", "o", "m", "g"), ("v", "c")
    output = "h"

    @staticmethod
    def step(x, r, s, p):
        cell = sigmoid(x.f + r.f) * s.c + sigmoid(x.i + r.i) * tanh(x.g + r.g)
        squashed = tanh(cell)
        return sigmoid(x.m + r.m) * squashed, cell, sigmoid(x.o + r.o) * squashed
