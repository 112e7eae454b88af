from .activations import tanh
from .base import Cell


class MiRU2(Cell):
    """Minion recurrent unit (Zyarah & Kudithipudi 2025, arXiv:2503.06175) with constants in the place of both gates.

        h' = λ h + (1 - λ) tanh(W x + U (θ h))

    U is ``weight_candidate_l{k}`` (H, H), λ is ``update`` (0.5) and θ ``reset`` (0.5). torchrecurrent has the same
    equation and defaults.
    """

    name = "miru2"
    gates, recurrent_gates, states = ("h",), (), ("h",)
    products = {"candidate": ("h",)}
    options = {"update": 0.5, "reset": 0.5}

    @staticmethod
    def step(x, r, s, p):
        candidate = tanh(x.h + p.candidate(p.reset * s.h))
        return candidate + p.update * (s.h - candidate)
