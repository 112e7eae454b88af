from .activations import sigmoid, tanh
from .base import Cell


class WorkingMemoryLSTM(Cell):
    """LSTM with working memory connections (Landi et al. 2021, arXiv:2109.00020): gates see products of the cell state.

        i = σ(W_i x + U_i h + tanh(V_i c)),  f = σ(W_f x + U_f h + tanh(V_f c))
        c' = f c + i tanh(W_g x + U_g h)
        o = σ(W_o x + U_o h + tanh(V_o c')),  h' = o tanh(c')

    V_i and V_f are the blocks of ``weight_memory_l{k}`` (2 H, H), V_o is ``weight_exposed_l{k}`` (H, H).
    torchrecurrent's code has the same equations, with the three in one weight.
    """

    name = "working_memory_lstm"
    gates, states = ("i", "f", "g", "o"), ("h", "c")
    products = {"memory": ("i", "f"), "exposed": ("o",)}

    @staticmethod
    def step(x, r, s, p):
        m = p.memory(s.c)
        input = sigmoid(x.i + r.i + tanh(m.i))
        forget = sigmoid(x.f + r.f + tanh(m.f))
        cell = forget * s.c + input * tanh(x.g + r.g)
        return sigmoid(x.o + r.o + tanh(p.exposed(cell))) * tanh(cell), cell
