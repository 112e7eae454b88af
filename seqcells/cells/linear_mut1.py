from .activations import tanh
from .base import Cell
from .mut1 import mutated


class LinearMUT1(Cell):
    """`MUT1` with a product of the input in the place of the input itself, which may have any size.

        z = σ(W_z x),  r = σ(W_r x + U_r h)
        h' = z tanh(V (r h) + tanh(W_h x)) + (1 - z) h

    V is ``weight_candidate_l{k}`` (H, H). torchrecurrent's MUT1 has these equations; its ``weight_hh`` has the blocks
    of U_r and V.
    """

    name = "linear_mut1"
    gates, recurrent_gates, states = ("z", "r", "h"), ("r",), ("h",)
    products = {"candidate": ("h",)}

    @staticmethod
    def step(x, r, s, p):
        return mutated(x.z, x.r + r.r, tanh(x.h), s.h, p)
