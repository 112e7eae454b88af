from .base import Cell
from .mut1 import mutated


class LinearMUT2(Cell):
    """`MUT2` with a product of the input in the place of the input itself, which may have any size.

        z = σ(W_z x + U_z h),  r = σ(W_r x + U_r h)
        h' = z tanh(V (r h) + W_h x) + (1 - z) h

    V is ``weight_candidate_l{k}`` (H, H). torchrecurrent's MUT2 has these equations, which equal those of
    `GRUResetBefore` with z for 1 - z; its ``weight_hh`` has the blocks of U_z, U_r and V.
    """

    name = "linear_mut2"
    gates, recurrent_gates, states = ("z", "r", "h"), ("z", "r"), ("h",)
    products = {"candidate": ("h",)}

    @staticmethod
    def step(x, r, s, p):
        return mutated(x.z + r.z, x.r + r.r, x.h, s.h, p)
