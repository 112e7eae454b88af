from .activations import sigmoid, tanh
from .base import Cell
from .declared import Times


class TauGRU(Cell):
    """GRU with delay feedback (Erichson et al. 2022, arXiv:2212.00228): z sees the state of d steps before h.

        u = tanh(W_u x + U_u h),  z = tanh(W_z x + D h_d)
        g = σ(W_g x + U_g h),  a = σ(W_a x + U_a h)
        h' = (1 - g) h + g (u + a z)

    D is ``weight_delayed_l{k}`` (H, H), d is ``delay`` (3), 0 or more. The cell carries the d states before h.
    torchrecurrent has the same equations with d = 1 by default; the second block of its ``weight_hh`` is D.
    """

    name = "tau_gru"
    gates, recurrent_gates = ("u", "z", "g", "a"), ("u", "g", "a")
    states = {"h": "H", "past": Times("H", lambda options: options.delay)}
    products = {"delayed": ("z",)}
    options = {"delay": 3}

    @staticmethod
    def step(x, r, s, p):
        history = s.h, *s.past
        new = tanh(x.u + r.u) + sigmoid(x.a + r.a) * tanh(x.z + p.delayed(history[-1]))
        return s.h + sigmoid(x.g + r.g) * (new - s.h), history[:-1]
