from seqcells.cells import Cell
from seqcells.cells.activations import sigmoid, tanh


class RAN(Cell):
    """Recurrent additive network (Lee et al. 2017, arXiv:1705.07393): the candidate does not see the past."""

    name = "ran"
    gates, recurrent_gates, states = ("g", "i", "f"), ("i", "f"), ("h", "c")

    @staticmethod
    def step(x, r, s, p):
        cell = sigmoid(x.i + r.i) * x.g + sigmoid(x.f + r.f) * s.c
        return tanh(cell), cell
