from seqcells.cells import Cell
from seqcells.cells.activations import sigmoid, tanh


class JANETBeta(Cell):
    """LSTM with nothing but its forget gate (van der Westhuizen & Lasenby 2018, arXiv:1804.04849), inputs shifted."""

    name = "janet_beta"
    gates, states = ("f", "g"), ("h",)
    options = {"beta": 1.0}

    @staticmethod
    def step(x, r, s, p):
        logit = x.f + r.f
        return sigmoid(logit) * s.h + (1 - sigmoid(logit - p.beta)) * tanh(x.g + r.g)
