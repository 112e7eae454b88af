from seqcells.cells import Cell
from seqcells.cells.activations import sigmoid, tanh


class WorkingMemoryLSTM(Cell):
    """LSTM with working memory connections (Landi et al. 2021, arXiv:2109.00020): gates see products of c."""

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
