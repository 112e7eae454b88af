from .activations import sigmoid
from .base import Cell


class TRNN(Cell):
    """Strongly-typed RNN (Balduzzi & Ghifary 2016, arXiv:1602.02218): no product of the state.

        z = W_z x,  f = σ(W_f x)
        h' = f h + (1 - f) z

    The paper's z has no bias. torchrecurrent has the same equations and weights.
    """

    name = "trnn"
    gates, recurrent_gates, states = ("z", "f"), (), ("h",)

    @staticmethod
    def step(x, r, s, p):
        return x.z + sigmoid(x.f) * (s.h - x.z)
