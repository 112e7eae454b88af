from seqcells.cells import Cell
from seqcells.cells.activations import sigmoid, tanh


class ZoneoutLSTM(Cell):
    """LSTM with zoneout (Krueger et al. 2017, arXiv:1606.01305): units keep their state where a mask is one."""

    name = "zoneout_lstm"
    gates, states = ("i", "f", "g", "o"), ("h", "c")
    streams = {"keep_h": "TBH", "keep_c": "TBH"}

    @staticmethod
    def step(x, r, s, p):
        cell = sigmoid(x.f + r.f) * s.c + sigmoid(x.i + r.i) * tanh(x.g + r.g)
        hidden = sigmoid(x.o + r.o) * tanh(cell)
        return hidden + x.keep_h * (s.h - hidden), cell + x.keep_c * (s.c - cell)


class DropoutLSTM(Cell):
    """LSTM with one recurrent dropout mask for all steps of a sequence (Gal & Ghahramani 2016, arXiv:1512.05287)."""

    name = "dropout_lstm"
    gates, recurrent_gates, states = ("i", "f", "g", "o"), (), ("h", "c")
    products = {"masked": ("i", "f", "g", "o")}
    streams = {"mask": "BH"}
    kept = ("forget", "c")

    @staticmethod
    def step(x, r, s, p):
        m = p.masked(x.mask * s.h)
        forget = sigmoid(x.f + m.f)
        cell = forget * s.c + sigmoid(x.i + m.i) * tanh(x.g + m.g)
        return sigmoid(x.o + m.o) * tanh(cell), cell, forget
