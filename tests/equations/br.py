from seqcells.cells import Cell
from seqcells.cells.activations import sigmoid, tanh


class BRC(Cell):
    """Bistable recurrent cell (Vecoven et al. 2021, arXiv:2006.05252): gates see their own unit's past alone."""

    name = "br"
    gates, recurrent_gates, states = ("a", "c", "h"), (), ("h",)
    parameters = {"recurrent": ("wa", "wc")}

    @staticmethod
    def step(x, r, s, p):
        return bistable(x, p.wa * s.h, p.wc * s.h, s.h)


class NBRC(Cell):
    """Recurrently neuromodulated bistable cell: gates see all units."""

    name = "nbr"
    gates, recurrent_gates, states = ("a", "c", "h"), ("a", "c"), ("h",)

    @staticmethod
    def step(x, r, s, p):
        return bistable(x, r.a, r.c, s.h)


def bistable(x, a, c, h):
    feedback, update = 1 + tanh(x.a + a), sigmoid(x.c + c)
    candidate = tanh(x.h + feedback * h)
    return candidate + update * (h - candidate)
