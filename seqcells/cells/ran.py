from .activations import sigmoid, tanh
from .base import Cell


class RAN(Cell):
    """Recurrent additive network (Lee et al. 2017, arXiv:1705.07393): the candidate does not see the past.

        i = σ(W_i x + U_i h),  f = σ(W_f x + U_f h)
        c' = i (W_g x) + f c
        h' = tanh(c')

    The paper and torchrecurrent have no bias of W_g x: here ``bias_ih.g`` begins at zero.
    """

    name = "ran"
    gates, recurrent_gates, states = ("g", "i", "f"), ("i", "f"), ("h", "c")
    initial = {"bias_ih.g": 0.0}

    @staticmethod
    def step(x, r, s, p):
        cell = sigmoid(x.i + r.i) * x.g + sigmoid(x.f + r.f) * s.c
        return tanh(cell), cell
