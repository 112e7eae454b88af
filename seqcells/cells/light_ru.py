from .activations import sigmoid, tanh
from .base import Cell


class LightRU(Cell):
    """Light recurrent unit (Ye et al. 2024, doi:10.3390/electronics13163204): the gate alone sees the past.

        f = σ(W_f x + U_f h)
        h' = (1 - f) h + f tanh(W_h x)

    torchrecurrent has the same equations and weights.
    """

    name = "light_ru"
    gates, recurrent_gates, states = ("h", "f"), ("f",), ("h",)

    @staticmethod
    def step(x, r, s, p):
        return s.h + sigmoid(x.f + r.f) * (tanh(x.h) - s.h)
