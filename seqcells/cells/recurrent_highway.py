from .activations import sigmoid, tanh
from .base import Cell
from .declared import Product, Times


class RecurrentHighway(Cell):
    """Recurrent highway network (Zilly et al. 2017, arXiv:1607.03474): ``depth`` layers in each step, carry 1 - t."""

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
