from .activations import tanh
from .base import Cell
from .mut1 import mutated


class MUT3(Cell):
    """Third mutant of Jozefowicz et al. 2015 (PMLR 37:2342): the update gate sees tanh of the state.

        z = σ(W_z x + Z tanh(h)),  r = σ(W_r x + U_r h)
        h' = z tanh(V (r h) + W_h x) + (1 - z) h

    V is ``weight_candidate_l{k}``, Z ``weight_update_l{k}``, both (H, H). torchrecurrent has the same equations; its
    ``weight_hh`` has the blocks of Z, U_r and V.
    """

    name = "mut3"
    gates, recurrent_gates, states = ("z", "r", "h"), ("r",), ("h",)
    products = {"candidate": ("h",), "update": ("z",)}

    @staticmethod
    def step(x, r, s, p):
        return mutated(x.z + p.update(tanh(s.h)), x.r + r.r, x.h, s.h, p)
