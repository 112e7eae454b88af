from .activations import sigmoid, tanh
from .base import Cell


class GRUResetBefore(Cell):
    """GRU as first published (Cho et al. 2014, arXiv:1406.1078): the reset gate before the candidate's product.

        r = σ(W_r x + U_r h),  z = σ(W_z x + U_z h)
        h' = z h + (1 - z) tanh(W_n x + V (r h))

    The cell is no option of `GRU`, since its state_dict differs: ``weight_hh`` has two row blocks, r and z. The
    candidate's V is a product of its own, ``weight_candidate_l{k}`` (H, H).
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
