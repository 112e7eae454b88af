from .activations import sigmoid, tanh
from .base import Cell


class GRU(Cell):
    """Gated recurrent unit (Cho et al. 2014), the reset gate applied after the recurrent product, as torch.nn."""

    name = "gru"
    gates, states = ("r", "z", "n"), ("h",)

    @staticmethod
    def step(x, r, s, p):
        reset = sigmoid(x.r + r.r)
        update = sigmoid(x.z + r.z)
        new = tanh(x.n + reset * r.n)
        return new + update * (s.h - new)
