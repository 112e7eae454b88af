from .activations import sigmoid, tanh
from .base import Cell


class NBRC(Cell):
    """Recurrently neuromodulated bistable cell (Vecoven et al. 2021, arXiv:2006.05252): gates see all units.

        a = 1 + tanh(W_a x + U_a h),  c = σ(W_c x + U_c h)
        h' = c h + (1 - c) tanh(W_h x + a h)

    The candidate sees its own unit's past alone. torchrecurrent's NBR has the same equations and weights.
    """

    name = "nbr"
    gates, recurrent_gates, states = ("a", "c", "h"), ("a", "c"), ("h",)

    @staticmethod
    def step(x, r, s, p):
        return bistable(x, r.a, r.c, s.h)


def bistable(x, a, c, h):
    """The next state, from the gates' recurrent parts a and c and the state h."""
    feedback, update = 1 + tanh(x.a + a), sigmoid(x.c + c)
    candidate = tanh(x.h + feedback * h)
    return candidate + update * (h - candidate)
