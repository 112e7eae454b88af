from seqcells.cells import Cell
from seqcells.cells.activations import sigmoid, tanh


class FastRNN(Cell):
    """FastRNN (Kusupati et al. 2018, arXiv:1901.02358): a residual connection with two learnable numbers."""

    name = "fast_rnn"
    gates, states = ("h",), ("h",)
    scalars = {"alpha": -3.0, "beta": 3.0}

    @staticmethod
    def step(x, r, s, p):
        return sigmoid(p.alpha) * tanh(x.h + r.h) + sigmoid(p.beta) * s.h
