from .activations import sigmoid, tanh
from .declared import Product, Times
from .recurrent_highway import RecurrentHighway


class UncoupledRecurrentHighway(RecurrentHighway):
    """Recurrent highway network (Zilly et al. 2017, arXiv:1607.03474) with a carry gate of its own.

        v' = σ(t) tanh(h) + σ(c) v,  ``depth`` (3) times in each step

    h, t and c are W x + U v the first time, products of v later: ``weight_deeper1_l{k}`` (3 H, H) and so on.
    torchrecurrent's code has the same equations with ``couple_carry=False``; its cell cannot be made (0.2.5).
    """

    name = "uncoupled_recurrent_highway"
    gates = recurrent_gates = ("h", "t", "c")
    products = {"deeper": Times(Product(("h", "t", "c")), lambda options: options.depth - 1)}

    @staticmethod
    def step(x, r, s, p):
        hidden = sigmoid(x.t + r.t) * tanh(x.h + r.h) + sigmoid(x.c + r.c) * s.h
        for product in p.deeper:
            layer = product(hidden)
            hidden = sigmoid(layer.t) * tanh(layer.h) + sigmoid(layer.c) * hidden
        return hidden
