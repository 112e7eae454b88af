from seqcells.cells import Cell
from seqcells.cells.activations import sigmoid, tanh


class MiRU1(Cell):
    """Minimion recurrent unit (doi:10.1016/j.neucom.2026.132847), with a reset gate; the update is a constant."""

    name = "miru1"
    gates, recurrent_gates, states = ("r", "h"), ("r",), ("h",)
    products = {"candidate": ("h",)}
    options = {"update": 0.5}

    @staticmethod
    def step(x, r, s, p):
        reset = sigmoid(x.r + r.r)
        candidate = tanh(x.h + p.candidate(reset * s.h))
        return candidate + p.update * (s.h - candidate)


class MiRU2(MiRU1):
    """The same with a constant in the reset gate's place, too."""

    name = "miru2"
    gates, recurrent_gates = ("h",), ()
    options = {"update": 0.5, "reset": 0.5}

    @staticmethod
    def step(x, r, s, p):
        candidate = tanh(x.h + p.candidate(p.reset * s.h))
        return candidate + p.update * (s.h - candidate)
