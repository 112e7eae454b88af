from .activations import sigmoid, tanh
from .base import Cell


class SGRN(Cell):
    """Simple gated recurrent network (Zu et al., doi:10.1049/gtd2.12056): two products serve gate and candidate.

        f = σ(W x + U h)
        h' = tanh((1 - f) (W x) + f h)

    torchrecurrent has the same equations and weights.
    """

    name = "sgrn"
    gates, states = ("h",), ("h",)

    @staticmethod
    def step(x, r, s, p):
        return tanh(x.h + sigmoid(x.h + r.h) * (s.h - x.h))
