from seqcells.cells import Cell
from seqcells.cells.activations import floor, sigmoid, tanh, where


class PhasedLSTM(Cell):
    """Phased LSTM (Neil et al. 2016, arXiv:1610.09513): each unit is open for a part of its period."""

    name = "phased_lstm"
    gates, states = ("i", "f", "g", "o"), ("h", "c")
    parameters = {"phase": ("period", "shift")}
    streams, options = {"time": "TB"}, {"open": 0.4, "leak": 0.001}

    @staticmethod
    def step(x, r, s, p):
        cycles = (x.time - p.shift) / p.period
        phase = cycles - floor(cycles)
        rising, falling = phase * (2 / p.open), 2 - phase * (2 / p.open)
        gate = where(p.open / 2 > phase, rising, where(p.open > phase, falling, p.leak * phase))
        cell = sigmoid(x.f + r.f) * s.c + sigmoid(x.i + r.i) * tanh(x.g + r.g)
        hidden = sigmoid(x.o + r.o) * tanh(cell)
        return s.h + gate * (hidden - s.h), s.c + gate * (cell - s.c)
