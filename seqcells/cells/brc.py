from .base import Cell
from .nbrc import bistable


class BRC(Cell):
    """Bistable recurrent cell (Vecoven et al. 2021, arXiv:2006.05252): gates see their own unit's past alone.

        a = 1 + tanh(W_a x + u_a h),  c = σ(W_c x + u_c h)
        h' = c h + (1 - c) tanh(W_h x + a h)

    u_a and u_c are the rows of ``weight_recurrent_l{k}`` (2, H). torchrecurrent's BR has the same equations, with a
    second bias of each gate.
    """

    name = "br"
    gates, recurrent_gates, states = ("a", "c", "h"), (), ("h",)
    parameters = {"recurrent": ("wa", "wc")}

    @staticmethod
    def step(x, r, s, p):
        return bistable(x, p.wa * s.h, p.wc * s.h, s.h)
