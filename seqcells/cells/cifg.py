from .activations import sigmoid, tanh
from .base import Cell


class CIFG(Cell):
    """LSTM with coupled input and forget gates (Greff et al. 2015, arXiv:1503.04069): i = 1 - f."""

    name = "cifg"
    gates, states = ("f", "g", "o"), ("h", "c")
    projection = True

    @staticmethod
    def step(x, r, s, p):
        forget = sigmoid(x.f + r.f)
        candidate = tanh(x.g + r.g)
        output = sigmoid(x.o + r.o)
        cell = forget * s.c + (1 - forget) * candidate
        return output * tanh(cell), cell
