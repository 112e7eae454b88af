from .activations import sigmoid, tanh
from .base import Cell


class JANET(Cell):
    """LSTM with nothing but its forget gate (van der Westhuizen & Lasenby 2018, arXiv:1804.04849), β = 0.

    `JANETBeta` has the paper's β, as torchrecurrent does, where β is learnt and begins at 1.
    """

    name = "janet"
    gates, states = ("f", "g"), ("h",)

    @staticmethod
    def step(x, r, s, p):
        forget = sigmoid(x.f + r.f)
        candidate = tanh(x.g + r.g)
        return forget * s.h + (1 - forget) * candidate
