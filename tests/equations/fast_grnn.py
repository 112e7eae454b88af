from seqcells.cells import Cell, Product
from seqcells.cells.activations import sigmoid, tanh


class FastGRNN(Cell):
    """FastGRNN (Kusupati et al. 2018, arXiv:1901.02358): gate and candidate share W and U; each has a bias."""

    name = "fast_grnn"
    gates, states = ("h",), ("h",)
    parameters = {"bias": ("bz", "bh")}
    scalars = {"zeta": 1.0, "nu": -4.0}

    @staticmethod
    def step(x, r, s, p):
        return gated(x.h + r.h, s.h, p)


class LowRankFastGRNN(FastGRNN):
    """FastGRNN with W and U products of two thin matrices, of ranks P and K."""

    name = "low_rank_fast_grnn"
    gates, recurrent_gates, streams = (), (), {"input": "TBF"}
    sizes = {"P": "input_rank", "K": "recurrent_rank"}
    products = {"w2": Product(("p",), "PF", bias=False), "w1": Product(("h",), "HP", bias=False)}
    products |= {"u2": Product(("k",), "KH", bias=False), "u1": Product(("h",), "HK", bias=False)}

    @staticmethod
    def step(x, r, s, p):
        return gated(p.w1(p.w2(x.input)) + p.u1(p.u2(s.h)), s.h, p)


def gated(shared, h, p):
    update = sigmoid(shared + p.bz)
    return (sigmoid(p.zeta) * (1 - update) + sigmoid(p.nu)) * tanh(shared + p.bh) + update * h
