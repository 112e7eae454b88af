from .activations import sigmoid, tanh
from .base import Cell


class UGRNN(Cell):
    """Update gate RNN (Collins et al. 2017, arXiv:1611.09913): one gate between state and candidate.

        g = σ(W_g x + U_g h)
        h' = g h + (1 - g) tanh(W_h x + U_h h)

    torchrecurrent has the same equations and weights.
    """

    name = "ugrnn"
    gates, states = ("h", "g"), ("h",)

    @staticmethod
    def step(x, r, s, p):
        candidate = tanh(x.h + r.h)
        return candidate + sigmoid(x.g + r.g) * (s.h - candidate)
