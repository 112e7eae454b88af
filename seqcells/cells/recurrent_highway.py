from .activations import sigmoid, tanh
from .base import Cell
from .declared import Product, Times


class RecurrentHighway(Cell):
    """Recurrent highway network (Zilly et al. 2017, arXiv:1607.03474): ``depth`` layers in each step, carry 1 - t.

        v' = v + σ(t) (tanh(h) - v),  ``depth`` (3) times in each step

    h and t are W x + U v the first time, products of v later: ``weight_deeper1_l{k}`` (2 H, H), ``weight_deeper2_l{k}``
    and so on. torchrecurrent's code has the same equations; its cell cannot be made (0.2.5).
    """

    name = "recurrent_highway"
    gates, states = ("h", "t"), ("h",)
    options = {"depth": 3}
    products = {"deeper": Times(Product(("h", "t")), lambda options: options.depth - 1)}

    @staticmethod
    def step(x, r, s, p):
        hidden = s.h + sigmoid(x.t + r.t) * (tanh(x.h + r.h) - s.h)
        for product in p.deeper:
            layer = product(hidden)
            hidden = hidden + sigmoid(layer.t) * (tanh(layer.h) - hidden)
        return hidden
