from . import units
from .activations import sigmoid, tanh
from .base import Cell


class BlockGRU(Cell):
    """GRU of DreamerV3's sequence model (Hafner et al. 2023, arXiv:2301.04104): recurrent weights of ``heads`` diagonal
    blocks, layer norm of all gates together, the reset gate after the product, an update gate that begins nearly shut.
    """

    name = "block_gru"
    gates, states = ("r", "n", "z"), ("h",)
    parameters = {"norm": ("gr", "gn", "gz"), "norm_bias": ("br", "bn", "bz")}
    initial = {**dict.fromkeys(("gr", "gn", "gz"), 1.0), **dict.fromkeys(("br", "bn", "bz"), 0.0)}
    options = {"heads": 8}

    @staticmethod
    def step(x, r, s, p):
        gate_r, gate_n, gate_z = units.normalised(x.r + r.r, x.n + r.n, x.z + r.z)
        reset = sigmoid(p.gr * gate_r + p.br)
        new = tanh(reset * (p.gn * gate_n + p.bn))
        update = sigmoid(p.gz * gate_z + p.bz - 1)
        return s.h + update * (new - s.h)
