from .activations import tanh
from .base import Cell


class EchoState(Cell):
    """Reservoir of an echo state network with a leaking rate (Jaeger et al. 2007, doi:10.1016/j.neunet.2007.04.016).

        h' = (1 - a) h + a f(W x + U h)

    ``leak`` (0.3) is a, ``activation`` (tanh) is f. `seqcells.EchoStateNetwork` draws the fixed weights and fits a
    read-out.
    """

    name = "echo_state"
    gates, states = ("h",), ("h",)
    options = {"leak": 0.3, "activation": tanh}

    @staticmethod
    def step(x, r, s, p):
        return (1 - p.leak) * s.h + p.leak * p.activation(x.h + r.h)
