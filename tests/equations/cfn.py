from seqcells.cells import Cell
from seqcells.cells.activations import sigmoid, tanh


class CFN(Cell):
    """Chaos-free network (Laurent & von Brecht 2017, arXiv:1612.06212)."""

    name = "cfn"
    gates, recurrent_gates, states = ("f", "i", "h"), ("f", "i"), ("h",)

    @staticmethod
    def step(x, r, s, p):
        return sigmoid(x.f + r.f) * tanh(s.h) + sigmoid(x.i + r.i) * tanh(x.h)
