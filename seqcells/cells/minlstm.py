from .activations import log_sigmoid, sigmoid
from .base import Cell


class MinLSTM(Cell):
    """minLSTM (Feng et al. 2024, arXiv:2410.01201): gates that see only the input and add up to one.

    h' = f' h + (1 - f') c,  c = W_h x
    f' = f / (f + i),  f = σ(W_f x),  i = σ(W_i x)
    """

    name = "minlstm"
    gates, recurrent_gates, states = ("f", "i", "h"), (), ("h",)

    @staticmethod
    def step(x, r, s, p):
        forget = share(x.f, x.i)
        return forget * s.h + (1 - forget) * x.h


def share(f, i):
    """σ(f) / (σ(f) + σ(i)), also where both terms are too small for a float."""
    return sigmoid(log_sigmoid(f) - log_sigmoid(i))
