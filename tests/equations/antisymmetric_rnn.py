from seqcells.cells import Cell
from seqcells.cells.activations import sigmoid, tanh


class AntisymmetricRNN(Cell):
    """AntisymmetricRNN (Chang et al. 2019, arXiv:1902.09689): a product with W - Wᵀ, damped by gamma."""

    name = "antisymmetric_rnn"
    gates, states = ("h",), ("h",)
    options = {"epsilon": 0.1, "gamma": 0.01}

    @staticmethod
    def weights(w):
        return {"hh": w.hh - w.hh.mT}

    @staticmethod
    def step(x, r, s, p):
        return s.h + p.epsilon * tanh(x.h + r.h - p.gamma * s.h)


class GatedAntisymmetricRNN(AntisymmetricRNN):
    """The same with an input gate, which shares the product."""

    name = "gated_antisymmetric_rnn"
    gates, recurrent_gates = ("z", "h"), ("h",)

    @staticmethod
    def step(x, r, s, p):
        damped = r.h - p.gamma * s.h
        return s.h + p.epsilon * sigmoid(x.z + damped) * tanh(x.h + damped)
