from .activations import sigmoid, tanh
from .base import Cell


class CFN(Cell):
    """Chaos-free network (Laurent & von Brecht 2017, arXiv:1612.06212): without input its state only decays.

        f = σ(W_f x + U_f h),  i = σ(W_i x + U_i h)
        h' = f tanh(h) + i tanh(W_h x)

    The paper calls the gates θ and η, and its candidate has no bias. torchrecurrent has the same equations and weights.
    """

    name = "cfn"
    gates, recurrent_gates, states = ("f", "i", "h"), ("f", "i"), ("h",)

    @staticmethod
    def step(x, r, s, p):
        return sigmoid(x.f + r.f) * tanh(s.h) + sigmoid(x.i + r.i) * tanh(x.h)
