from seqcells.cells import Cell, Product
from seqcells.cells.activations import sigmoid, tanh


class TRNN(Cell):
    """Strongly-typed RNN (Balduzzi & Ghifary 2016, arXiv:1602.02218): no product of the state."""

    name = "trnn"
    gates, recurrent_gates, states = ("z", "f"), (), ("h",)

    @staticmethod
    def step(x, r, s, p):
        return x.z + sigmoid(x.f) * (s.h - x.z)


class TGRU(Cell):
    """Strongly-typed GRU: gates see the input of this step and of the one before, a state of its size."""

    name = "tgru"
    gates, recurrent_gates, states = ("z", "f", "o"), (), {"h": "H", "last": "F"}
    streams, products = {"input": "TBF"}, {"last": Product(("z", "f", "o"), "HF", bias=False)}

    @staticmethod
    def step(x, r, s, p):
        v = p.last(s.last)
        return sigmoid(x.f + v.f) * s.h + (x.z + v.z) * tanh(x.o + v.o), x.input


class TLSTM(TGRU):
    """Strongly-typed LSTM: the output is no state."""

    name, states, output = "tlstm", {"c": "H", "last": "F"}, "h"

    @staticmethod
    def step(x, r, s, p):
        v = p.last(s.last)
        new = x.z + v.z
        cell = new + sigmoid(x.f + v.f) * (s.c - new)
        return cell, x.input, cell * tanh(x.o + v.o)
