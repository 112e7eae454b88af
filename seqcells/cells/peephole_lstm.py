from .activations import sigmoid, tanh
from .base import Cell


class PeepholeLSTM(Cell):
    """LSTM whose gates see the cell state (Gers & Schmidhuber 2000): i and f see c_{t-1}, o sees c_t.

    torchrecurrent has the same equations; its ``weight_ph`` has the three rows one after the other.
    """

    name = "peephole_lstm"
    gates, states = ("i", "f", "g", "o"), ("h", "c")
    parameters = {"peephole": ("i", "f", "o")}
    projection = True

    @staticmethod
    def step(x, r, s, p):
        input = sigmoid(x.i + r.i + p.i * s.c)
        forget = sigmoid(x.f + r.f + p.f * s.c)
        candidate = tanh(x.g + r.g)
        cell = forget * s.c + input * candidate
        output = sigmoid(x.o + r.o + p.o * cell)
        return output * tanh(cell), cell
