from seqcells.cells import Product, RecurrentHighway, Times
from seqcells.cells.activations import sigmoid, tanh


class UncoupledRecurrentHighway(RecurrentHighway):
    """Recurrent highway network (Zilly et al. 2017, arXiv:1607.03474) with a carry gate of its own."""

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
