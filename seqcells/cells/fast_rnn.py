from .activations import sigmoid, tanh
from .base import Cell


class FastRNN(Cell):
    """FastRNN (Kusupati et al. 2018, arXiv:1901.02358): a residual connection with two learnable numbers.

        h' = σ(α) tanh(W x + U h) + σ(β) h

    α and β are ``weight_alpha_l{k}`` and ``weight_beta_l{k}``, of shape (1,); they begin at -3 and 3, as in the
    authors' code (EdgeML). torchrecurrent has them begin at 3 and -3: ``initial={"alpha": 3.0, "beta": -3.0}``. Option:
    ``activation`` (tanh).
    """

    name = "fast_rnn"
    gates, states = ("h",), ("h",)
    scalars = {"alpha": -3.0, "beta": 3.0}
    options = {"activation": tanh}

    @staticmethod
    def step(x, r, s, p):
        return sigmoid(p.alpha) * p.activation(x.h + r.h) + sigmoid(p.beta) * s.h
