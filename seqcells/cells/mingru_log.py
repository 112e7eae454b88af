from .activations import sigmoid, where
from .base import Cell


class MinGRULog(Cell):
    """minGRU in the form whose scan adds logarithms (Feng et al. 2024, arXiv:2410.01201, appendix B.2.1).

        h' = (1 - z) h + z g(c),  z = σ(W_z x),  c = W_h x

    g(c) is c + 1/2 where c is positive and σ(c) elsewhere: a hidden state that begins positive remains so.
    """

    name = "mingru_log"
    gates, recurrent_gates, states = ("z", "h"), (), ("h",)

    @staticmethod
    def step(x, r, s, p):
        update = sigmoid(x.z)
        return (1 - update) * s.h + update * positive(x.h)


def positive(v):
    """A positive function of any value, g in the paper."""
    return where(v > 0, v + 0.5, sigmoid(v))
