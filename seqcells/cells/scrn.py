from . import units
from .activations import sigmoid
from .base import Cell
from .declared import Product


class SCRN(Cell):
    """Structurally constrained network (Mikolov et al. 2015, arXiv:1412.7753): a state s that changes slowly.

        s' = (1 - α) B x + α s
        h' = σ(P s' + A x + R h)
        y' = softmax(U h' + V s')

    The output y is no state and has ``output_size`` units, s has ``context_size``; α is ``alpha`` (0.95), a constant.
    B, P, U and V are ``weight_slow``, ``weight_context``, ``weight_fast_y`` and ``weight_slow_y``. torchrecurrent's
    cell has other equations: R is applied to y, all sizes are H, y is a tanh, and α is learnt.
    """

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
