from .activations import relu, sigmoid
from .base import Cell


class LiGRU(Cell):
    """Light GRU (Ravanelli et al. 2018, arXiv:1803.10225): no reset gate, a rectifier; without its batch norm.

    torchrecurrent has the same equations and weights.
    """

    name = "ligru"
    gates, states = ("z", "h"), ("h",)

    @staticmethod
    def step(x, r, s, p):
        update = sigmoid(x.z + r.z)
        candidate = relu(x.h + r.h)
        return update * s.h + (1 - update) * candidate
