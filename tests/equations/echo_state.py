from seqcells.cells import Cell
from seqcells.cells.activations import tanh


class EchoState(Cell):
    """An echo state network's reservoir with leaking rate (Jaeger et al. 2007, doi:10.1016/j.neunet.2007.04.016)."""

    name = "echo_state"
    gates, states = ("h",), ("h",)
    options = {"leak": 0.3, "activation": tanh}

    @staticmethod
    def step(x, r, s, p):
        return (1 - p.leak) * s.h + p.leak * p.activation(x.h + r.h)
