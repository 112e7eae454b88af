from .activations import tanh
from .base import Cell


class Jordan(Cell):
    """Jordan's network (Jordan 1986): its output is fed back, a projection of the hidden units (``proj_size``)."""

    name = "jordan"
    gates, states = ("h",), ("h",)
    projection = True

    @staticmethod
    def step(x, r, s, p):
        return tanh(x.h + r.h)
