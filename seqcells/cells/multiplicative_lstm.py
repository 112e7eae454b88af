from .activations import sigmoid, tanh
from .base import Cell


class MultiplicativeLSTM(Cell):
    """Multiplicative LSTM (Krause et al. 2016, arXiv:1609.07959): the gates see m, made of x and h, in place of h.

        m = (W_m x) (U h)
        i, f, o = σ(W x + V m),  g = tanh(W_g x + V_g m)
        c' = f c + i g,  h' = o tanh(c')

    V is ``weight_intermediate_l{k}`` (4 H, H). torchrecurrent has the same equations and weights.
    """

    name = "multiplicative_lstm"
    gates, recurrent_gates, states = ("m", "i", "f", "g", "o"), ("m",), ("h", "c")
    products = {"intermediate": ("i", "f", "g", "o")}

    @staticmethod
    def step(x, r, s, p):
        m = p.intermediate(x.m * r.m)
        input = sigmoid(x.i + m.i)
        forget = sigmoid(x.f + m.f)
        candidate = tanh(x.g + m.g)
        output = sigmoid(x.o + m.o)
        cell = forget * s.c + input * candidate
        return output * tanh(cell), cell
