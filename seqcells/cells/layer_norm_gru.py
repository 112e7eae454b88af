from . import units
from .activations import sigmoid, tanh
from .base import Cell


class LayerNormGRU(Cell):
    """GRU with layer norm (Ba et al. 2016, arXiv:1607.06450): of r's and z's pre-activations together, and of n's."""

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
