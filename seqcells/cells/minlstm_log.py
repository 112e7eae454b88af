from .base import Cell
from .mingru_log import positive
from .minlstm import share


class MinLSTMLog(Cell):
    """minLSTM in the form whose scan adds logarithms (Feng et al. 2024, arXiv:2410.01201, appendix B.2.2).

        h' = f' h + (1 - f') g(c),  c = W_h x
        f' = f / (f + i),  f = σ(W_f x),  i = σ(W_i x)

    g(c) is that of `MinGRULog`.
    """

    name = "minlstm_log"
    gates, recurrent_gates, states = ("f", "i", "h"), (), ("h",)

    @staticmethod
    def step(x, r, s, p):
        forget = share(x.f, x.i)
        return forget * s.h + (1 - forget) * positive(x.h)
