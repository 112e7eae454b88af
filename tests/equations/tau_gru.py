from seqcells.cells import Cell, Times
from seqcells.cells.activations import sigmoid, tanh


class TauGRU(Cell):
    """GRU with delay feedback (Erichson et al. 2022, arXiv:2212.00228): z sees the state ``delay`` steps ago."""

    name = "tau_gru"
    gates, recurrent_gates = ("u", "z", "g", "a"), ("u", "g", "a")
    states = {"h": "H", "past": Times("H", lambda options: options.delay)}
    products = {"delayed": ("z",)}
    options = {"delay": 3}

    @staticmethod
    def step(x, r, s, p):
        new = tanh(x.u + r.u) + sigmoid(x.a + r.a) * tanh(x.z + p.delayed(s.past[-1]))
        return s.h + sigmoid(x.g + r.g) * (new - s.h), (s.h, *s.past[:-1])
