from seqcells.cells import Cell
from seqcells.cells.activations import sigmoid, tanh


class UGRNN(Cell):
    """Update gate RNN (Collins et al. 2017, arXiv:1611.09913)."""

    name = "ugrnn"
    gates, states = ("h", "g"), ("h",)

    @staticmethod
    def step(x, r, s, p):
        candidate = tanh(x.h + r.h)
        return candidate + sigmoid(x.g + r.g) * (s.h - candidate)
