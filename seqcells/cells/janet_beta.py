from .activations import sigmoid, tanh
from .base import Cell


class JANETBeta(Cell):
    """JANET (van der Westhuizen & Lasenby 2018, arXiv:1804.04849) with the paper's shift β of the input gate.

        s = W_f x + U_f h
        h' = σ(s) h + (1 - σ(s - β)) tanh(W_g x + U_g h)

    β is ``beta`` (1.0), the paper's value; `JANET` has β = 0. In torchrecurrent β is learnt and begins at 1, and the
    state is returned twice, as h and as c.
    """

    name = "janet_beta"
    gates, states = ("f", "g"), ("h",)
    options = {"beta": 1.0}

    @staticmethod
    def step(x, r, s, p):
        logit = x.f + r.f
        return sigmoid(logit) * s.h + (1 - sigmoid(logit - p.beta)) * tanh(x.g + r.g)
