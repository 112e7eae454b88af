from . import units
from .activations import sigmoid, tanh
from .base import Cell


class BlockGRU(Cell):
    """Layer-norm GRU of DreamerV2 (Hafner et al. 2021, arXiv:2010.02193), its recurrent weights of ``heads`` blocks.

        r, n, z = LN(W x + U h)
        h' = h + σ(z - 1) (tanh(σ(r) n) - h)

    U has ``heads`` (8) diagonal blocks. The rows of ``weight_norm_l{k}`` and ``weight_norm_bias_l{k}``, both (3, H),
    are the norm's gains and biases.

    It has one layer norm of all gates together, the reset gate after the product, and an update gate that begins nearly
    shut. DreamerV3's code of 2023 (Hafner et al., arXiv:2301.04104) and sheeprl have the same form. All three have full
    recurrent weights, as one head does, and add 1e-3 to the variance where this cell adds 1e-5. DreamerV3's code since
    2024 has another cell (danijar/dreamerv3 at e3f0224, `_core` of rssm.py). That cell first mixes the state and the
    input by a layer of blocks, and normalises that layer, not the gates.
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
