from seqcells.cells import Cell
from seqcells.cells.activations import sigmoid, tanh


class LightRU(Cell):
    """Light recurrent unit (Ye et al. 2024, Electronics 13:3204): one gate sees the past."""

    name = "light_ru"
    gates, recurrent_gates, states = ("h", "f"), ("f",), ("h",)

    @staticmethod
    def step(x, r, s, p):
        return s.h + sigmoid(x.f + r.f) * (tanh(x.h) - s.h)
