from .activations import sigmoid, tanh
from .base import Cell


class STAR(Cell):
    """Stackable recurrent cell (Turkoglu et al. 2021, arXiv:1911.11033): one gate, and gradients that keep their size.

        k = σ(W_k x + U_k h)
        h' = tanh((1 - k) h + k tanh(W_z x))

    torchrecurrent has the same equations and weights.
    """

    name = "star"
    gates, recurrent_gates, states = ("z", "k"), ("k",), ("h",)

    @staticmethod
    def step(x, r, s, p):
        return tanh(s.h + sigmoid(x.k + r.k) * (tanh(x.z) - s.h))
