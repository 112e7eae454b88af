from .activations import sigmoid
from .base import Cell


class ATR(Cell):
    """Addition-subtraction twin-gated network (Zhang et al. 2018, arXiv:1810.12546): two gates of the same parts.

        p = W x,  q = U h
        h' = σ(p + q) p + σ(p - q) h

    torchrecurrent has the same equations and weights.
    """

    name = "atr"
    gates, states = ("h",), ("h",)

    @staticmethod
    def step(x, r, s, p):
        return sigmoid(x.h + r.h) * x.h + sigmoid(x.h - r.h) * s.h
