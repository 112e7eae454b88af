from . import units
from .activations import sigmoid, tanh
from .base import Cell


class LayerNormGRU(Cell):
    """GRU with layer norm (Ba et al. 2016, arXiv:1607.06450): of r's and z's pre-activations together, and of n's.

        r, z = σ(LN(W x) + LN(U h))
        h' = z h + (1 - z) tanh(LN(W_n x) + r LN(U_n h))

    The gains are the rows of ``weight_norm_x_l{k}`` and ``weight_norm_h_l{k}`` (3, H each), which begin at one. The
    biases are the rows of ``weight_norm_bias_l{k}`` (4, H), which begin at zero.
    """

    name = "layer_norm_gru"
    gates, states = ("r", "z", "n"), ("h",)
    parameters = {
        "norm_x": ("xr", "xz", "xn"),
        "norm_h": ("hr", "hz", "hn"),
        "norm_bias": ("br", "bz", "bn", "cn"),
    }
    initial = {
        **dict.fromkeys(("xr", "xz", "xn", "hr", "hz", "hn"), 1.0),
        **dict.fromkeys(("br", "bz", "bn", "cn"), 0.0),
    }

    @staticmethod
    def step(x, r, s, p):
        xr, xz = units.normalised(x.r, x.z)
        hr, hz = units.normalised(r.r, r.z)
        reset = sigmoid(p.xr * xr + p.hr * hr + p.br)
        update = sigmoid(p.xz * xz + p.hz * hz + p.bz)
        new = tanh(units.layer_norm(x.n, p.xn, p.bn) + reset * units.layer_norm(r.n, p.hn, p.cn))
        return new + update * (s.h - new)
