from seqcells.cells import Cell
from seqcells.cells.activations import sigmoid, tanh


class RecurrentDropoutLSTM(Cell):
    """LSTM with dropout of the candidate, a mask for each step (Semeniuta et al. 2016, arXiv:1603.05118)."""

    name = "recurrent_dropout_lstm"
    gates, states = ("i", "f", "g", "o"), ("h", "c")
    streams = {"mask": "TBH"}

    @staticmethod
    def step(x, r, s, p):
        cell = sigmoid(x.f + r.f) * s.c + sigmoid(x.i + r.i) * x.mask * tanh(x.g + r.g)
        return sigmoid(x.o + r.o) * tanh(cell), cell
