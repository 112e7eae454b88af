from seqcells.cells import Cell, Product, units
from seqcells.cells.activations import sigmoid, tanh


class MixedSizes(Cell):
    """An invented cell whose scalars are used in vectors of three sizes, so that their gradients are sums over each
    vector."""

    name = "mixed_sizes"
    gates, states = ("c",), {"h": "P", "c": "H", "k": "K"}
    sizes = {"P": "proj_size", "K": "rank"}
    scalars, parameters = ("alpha", "beta"), {"up": {"up": "P"}, "down": {"down_row": "K"}}
    products = {"halve": Product(("p", "q"), "PH"), "narrow": Product(("k",), "KP", bias=False)}
    products |= {"wide": Product(("c",), "HK")}
    output, kept = "y", ("norm",)

    @staticmethod
    def step(x, r, s, p):
        cell = s.c + sigmoid(p.alpha) * (tanh(x.c + r.c + p.wide(s.k)) - s.c)
        of_c = p.halve(cell * p.beta)
        hidden = tanh(of_c.p * p.alpha * p.up) * sigmoid(of_c.q + units.mean(s.k))
        narrow = s.k + p.alpha * p.down_row * tanh(p.narrow(hidden)) * units.max(s.h)
        norm = units.variance(narrow * p.beta)
        return hidden, cell, narrow, hidden * norm, norm
