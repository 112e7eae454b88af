from seqcells.cells import Cell
from seqcells.cells.activations import relu, sigmoid, tanh


class NAS(Cell):
    """The cell found by architecture search (Zoph & Le 2017, arXiv:1611.01578), as TensorFlow's NASCell has it."""

    name = "nas"
    gates, states = ("a", "b", "c", "d", "e", "f", "g", "h"), ("h", "c")

    @staticmethod
    def step(x, r, s, p):
        first = tanh(sigmoid(x.a + r.a) * relu(x.b + r.b))
        second = tanh(sigmoid(x.c + r.c) + relu(x.d * r.d))
        third = tanh(tanh(x.e + r.e) * sigmoid(x.f + r.f))
        fourth = sigmoid(tanh(x.g + r.g) + sigmoid(x.h + r.h))
        cell = tanh(first + s.c) * second
        return tanh(cell * tanh(third + fourth)), cell
