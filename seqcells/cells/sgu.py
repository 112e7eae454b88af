from .activations import hard_sigmoid, softplus, tanh
from .base import Cell


class SGU(Cell):
    """Simple gated unit (Gao & Glowacka 2016, arXiv:1604.02910): the gate sees the product of input and past.

        g = tanh(V ((W_g x) h)),  z = hard_sigmoid(W_z x + U_z h)
        h' = z softplus(g h) + (1 - z) h

    V is ``weight_gate_l{k}`` (H, H); the hard sigmoid is torch's, of slope 1/6. torchrecurrent has the same equations
    and weights.
    """

    name = "sgu"
    gates, recurrent_gates, states = ("g", "z"), ("z",), ("h",)
    products = {"gate": ("g",)}

    @staticmethod
    def step(x, r, s, p):
        new = softplus(tanh(p.gate(x.g * s.h)) * s.h)
        return s.h + hard_sigmoid(x.z + r.z) * (new - s.h)
