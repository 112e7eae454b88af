from seqcells.cells import Cell, Product, units
from seqcells.cells.activations import sigmoid


class SCRN(Cell):
    """Structurally constrained network (Mikolov et al. 2015, arXiv:1412.7753): a slow context of another size, and an
    output of a third size that is no state."""

    name = "scrn"
    gates, states = ("h",), {"h": "H", "s": "S"}
    sizes = {"S": "context_size", "P": "output_size"}
    streams, options = {"input": "TBF"}, {"alpha": 0.95}
    products = {"slow": Product(("s",), "SF", bias=False), "context": Product(("h",), "HS", bias=False)}
    products |= {"fast_y": Product(("y",), "PH"), "slow_y": Product(("y",), "PS", bias=False)}
    output = "y"

    @staticmethod
    def step(x, r, s, p):
        context = (1 - p.alpha) * p.slow(x.input) + p.alpha * s.s
        hidden = sigmoid(p.context(context) + x.h + r.h)
        return hidden, context, units.softmax(p.fast_y(hidden) + p.slow_y(context))
