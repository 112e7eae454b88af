from seqcells.cells import Cell
from seqcells.cells.activations import sigmoid, tanh


class MUT1(Cell):
    """Jozefowicz et al. 2015 (PMLR 37:2342), first mutant: tanh of the input itself, as large as the state."""

    name = "mut1"
    gates, recurrent_gates, states = ("z", "r"), ("r",), ("h",)
    products, streams = {"candidate": ("h",)}, {"input": "TBH"}

    @staticmethod
    def step(x, r, s, p):
        candidate = tanh(p.candidate(sigmoid(x.r + r.r) * s.h) + tanh(x.input))
        return s.h + sigmoid(x.z) * (candidate - s.h)


class MUT2(MUT1):
    """Second mutant: the reset gate sees the input itself."""

    name, gates, recurrent_gates = "mut2", ("z", "h"), ("z", "r")

    @staticmethod
    def step(x, r, s, p):
        candidate = tanh(p.candidate(sigmoid(x.input + r.r) * s.h) + x.h)
        return s.h + sigmoid(x.z + r.z) * (candidate - s.h)


class MUT3(MUT1):
    """Third mutant: the update gate sees a product of tanh(h)."""

    name, gates, recurrent_gates, streams = "mut3", ("z", "r", "h"), ("r",), {}
    products = {"candidate": ("h",), "update": ("z",)}

    @staticmethod
    def step(x, r, s, p):
        candidate = tanh(p.candidate(sigmoid(x.r + r.r) * s.h) + x.h)
        return s.h + sigmoid(x.z + p.update(tanh(s.h))) * (candidate - s.h)
