from .activations import sigmoid
from .base import Cell


class MinGRU(Cell):
    """minGRU (Feng et al. 2024, arXiv:2410.01201), its sequential form: gates that see only the input."""

    name = "mingru"
    gates, recurrent_gates, states = ("z", "h"), (), ("h",)

    @staticmethod
    def step(x, r, s, p):
        update = sigmoid(x.z)
        return (1 - update) * s.h + update * x.h
