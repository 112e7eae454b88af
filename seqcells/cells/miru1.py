from .activations import sigmoid, tanh
from .base import Cell


class MiRU1(Cell):
    """Minion recurrent unit (Zyarah & Kudithipudi 2025, arXiv:2503.06175): a GRU whose update gate is a constant.

        r = σ(W_r x + U_r h)
        h' = λ h + (1 - λ) tanh(W_h x + V (r h))

    V is ``weight_candidate_l{k}`` (H, H), λ is ``update`` (0.5). torchrecurrent has the same equations and default.
    """

    name = "miru1"
    gates, recurrent_gates, states = ("r", "h"), ("r",), ("h",)
    products = {"candidate": ("h",)}
    options = {"update": 0.5}

    @staticmethod
    def step(x, r, s, p):
        reset = sigmoid(x.r + r.r)
        candidate = tanh(x.h + p.candidate(reset * s.h))
        return candidate + p.update * (s.h - candidate)
