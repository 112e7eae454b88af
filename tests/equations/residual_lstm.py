from seqcells.cells import Cell, Product
from seqcells.cells.activations import sigmoid, tanh


class ResidualLSTM(Cell):
    """Residual LSTM (Kim et al. 2017, arXiv:1701.03360): peepholes, a projection, and the input added before o."""

    name = "residual_lstm"
    gates, recurrent_gates, states = ("i", "f", "g", "o", "x"), ("i", "f", "g", "o"), ("h", "c")
    parameters = {"peephole": ("i", "f", "o")}
    products = {"projection": Product(("m",), bias=False)}

    @staticmethod
    def step(x, r, s, p):
        input = sigmoid(x.i + r.i + p.i * s.c)
        forget = sigmoid(x.f + r.f + p.f * s.c)
        cell = forget * s.c + input * tanh(x.g + r.g)
        output = sigmoid(x.o + r.o + p.o * cell)
        return output * (p.projection(tanh(cell)) + x.x), cell
