from .activations import sigmoid, tanh
from .base import Cell


class OriginalLSTM(Cell):
    """LSTM without forget gate (Hochreiter & Schmidhuber 1997, doi:10.1162/neco.1997.9.8.1735).

        c' = c + σ(W_i x + U_i h) (4 σ(W_g x + U_g h) - 2)
        h' = σ(W_o x + U_o h) (2 σ(c') - 1)

    Option: ``rescaled`` (True), the paper's squashing functions. torchrecurrent has tanh in the place of both, as
    ``rescaled=False`` does.
    """

    name = "original_lstm"
    gates, states = ("i", "g", "o"), ("h", "c")
    options = {"rescaled": True}

    @staticmethod
    def step(x, r, s, p):
        candidate = 4 * sigmoid(x.g + r.g) - 2 if p.rescaled else tanh(x.g + r.g)
        cell = s.c + sigmoid(x.i + r.i) * candidate
        return sigmoid(x.o + r.o) * (2 * sigmoid(cell) - 1 if p.rescaled else tanh(cell)), cell
