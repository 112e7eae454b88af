from .activations import tanh
from .base import Cell


class AntisymmetricRNN(Cell):
    """AntisymmetricRNN (Chang et al. 2019, arXiv:1902.09689): Euler's step of a stable differential equation.

        h' = h + ε tanh(W x + (U - Uᵀ - γ I) h)

    U is ``weight_hh_l{k}`` (H, H), the step ε ``epsilon`` (0.1), the damping γ ``gamma`` (0.01). torchrecurrent has the
    same equation; its defaults are ε = 1 and γ = 0.
    """

    name = "antisymmetric_rnn"
    gates, states = ("h",), ("h",)
    options = {"epsilon": 0.1, "gamma": 0.01}

    @staticmethod
    def weights(w):
        return {"hh": w.hh - w.hh.mT}

    @staticmethod
    def step(x, r, s, p):
        return s.h + p.epsilon * tanh(x.h + r.h - p.gamma * s.h)
