from .activations import sigmoid, tanh
from .base import Cell
from .declared import Product


class TGRU(Cell):
    """Strongly-typed GRU (Balduzzi & Ghifary 2016, arXiv:1602.02218): gates see this input and the one before.

        z = W_z x + V_z x_,  f = σ(W_f x + V_f x_),  o = tanh(W_o x + V_o x_)
        h' = f h + z o

    x_ is the state ``last``, of the input's size. V_z, V_f and V_o are the row blocks of ``weight_last_l{k}`` (3 H,
    input_size).
    torchrecurrent has the same equations, with a second bias of each gate.
    """

    name = "tgru"
    gates, recurrent_gates, states = ("z", "f", "o"), (), {"h": "H", "last": "F"}
    streams, products = {"input": "TBF"}, {"last": Product(("z", "f", "o"), "HF", bias=False)}

    @staticmethod
    def step(x, r, s, p):
        v = p.last(s.last)
        return sigmoid(x.f + v.f) * s.h + (x.z + v.z) * tanh(x.o + v.o), x.input
