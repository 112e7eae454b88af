from seqcells.cells import Cell
from seqcells.cells.activations import sigmoid, tanh


class STAR(Cell):
    """Stackable recurrent cell (Turkoglu et al. 2021, arXiv:1911.11033)."""

    name = "star"
    gates, recurrent_gates, states = ("z", "k"), ("k",), ("h",)

    @staticmethod
    def step(x, r, s, p):
        return tanh(s.h + sigmoid(x.k + r.k) * (tanh(x.z) - s.h))
