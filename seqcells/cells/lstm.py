from .activations import sigmoid, tanh
from .base import Cell


class LSTM(Cell):
    """Long short-term memory with a forget gate (Hochreiter & Schmidhuber 1997; Gers et al. 2000), as torch.nn."""

    name = "lstm"
    gates, states = ("i", "f", "g", "o"), ("h", "c")
    projection = True

    @staticmethod
    def step(x, r, s, p):
        input = sigmoid(x.i + r.i)
        forget = sigmoid(x.f + r.f)
        candidate = tanh(x.g + r.g)
        output = sigmoid(x.o + r.o)
        cell = forget * s.c + input * candidate
        return output * tanh(cell), cell
