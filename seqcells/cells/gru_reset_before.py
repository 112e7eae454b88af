from .activations import sigmoid, tanh
from .base import Cell


class GRUResetBefore(Cell):
    """GRU as first published (Cho et al. 2014, arXiv:1406.1078): the reset gate before the candidate's product.

        r = σ(W_r x + U_r h),  z = σ(W_z x + U_z h)
        h' = z h + (1 - z) tanh(W_n x + V (r h))

    It is a twin of `GRU`, no option of it: ``weight_hh`` has two row blocks, r and z, and the candidate's V is a
    product of its own, ``weight_candidate_l{k}`` (H, H), so that neither's state_dict is the other's.
    """

    name = "gru_reset_before"
    gates, recurrent_gates, states = ("r", "z", "n"), ("r", "z"), ("h",)
    products = {"candidate": ("n",)}

    @staticmethod
    def step(x, r, s, p):
        reset = sigmoid(x.r + r.r)
        update = sigmoid(x.z + r.z)
        new = tanh(x.n + p.candidate(reset * s.h))
        return new + update * (s.h - new)
