from seqcells.cells import Cell, Product, units
from seqcells.cells.activations import rsqrt, sigmoid, tanh


class DreamerCore(Cell):
    """The sequence model of DreamerV3's code since 2024 (danijar/dreamerv3 at e3f0224, `_core` of rssm.py), one layer.

    A block-diagonal product mixes an embedding of the whole state, the state's own blocks and the input. A second
    block-diagonal product makes the gates. ``blocks`` is called heads here, ``hidden`` embedding_size. The input is
    what the code makes of the stochastic state and the action: product, norm and SiLU of each, concatenated.
    """

    name = "dreamer_core"
    gates, states = ("m",), ("h",)
    sizes, options = {"K": "embedding_size"}, {"heads": 4}
    parameters = {"norm": ("gain",), "norm_embedding": {"embedding_gain": "K"}}
    products = {
        "embedding": Product(("k",), "KH"),
        "embedded": Product(("m",), "HK", bias=False),
        "gates": ("r", "n", "z"),
    }
    initial = {"gain": 1.0, "embedding_gain": 1.0}

    @staticmethod
    def step(x, r, s, p):
        embedded = silu(rms_norm(p.embedding(s.h), p.embedding_gain))
        mixed = silu(rms_norm(x.m + r.m + p.embedded(embedded), p.gain))
        gates = p.gates(mixed)
        new = tanh(sigmoid(gates.r) * gates.n)
        update = sigmoid(gates.z - 1)
        return s.h + update * (new - s.h)


def rms_norm(v, gain, epsilon=1e-4):
    return v * rsqrt(units.mean(v * v) + epsilon) * gain


def silu(v):
    return v * sigmoid(v)
