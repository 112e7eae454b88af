from .activations import sigmoid, tanh
from .base import Cell


class FastGRNN(Cell):
    """FastGRNN (Kusupati et al. 2018, arXiv:1901.02358): gate and candidate share W and U.

        z = σ(W x + U h + b_z),  c = tanh(W x + U h + b_h)
        h' = (σ(ζ) (1 - z) + σ(ν)) c + z h

    b_z and b_h are the rows of ``weight_bias_l{k}`` (2, H). ζ and ν are ``weight_zeta_l{k}`` and ``weight_nu_l{k}``, of
    shape (1,). All begin as in the authors' code (EdgeML): at 1, 1, 1 and -4. Options: ``gate_activation`` (sigmoid),
    ``activation`` (tanh). torchrecurrent's code has tanh for the gate, and ζ and ν begin at 3 and -3.
    """

    name = "fast_grnn"
    gates, states = ("h",), ("h",)
    parameters = {"bias": ("bz", "bh")}
    scalars = {"zeta": 1.0, "nu": -4.0}
    options = {"gate_activation": sigmoid, "activation": tanh}
    initial = {"bz": 1.0, "bh": 1.0}

    @staticmethod
    def step(x, r, s, p):
        return gated(x.h + r.h, s.h, p)


def gated(shared, h, p):
    """The next state, from the state h and the sum that gate and candidate share."""
    update = p.gate_activation(shared + p.bz)
    return (sigmoid(p.zeta) * (1 - update) + sigmoid(p.nu)) * p.activation(shared + p.bh) + update * h
