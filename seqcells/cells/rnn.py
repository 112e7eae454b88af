from .activations import relu, tanh
from .base import Cell


class RNNTanh(Cell):
    """Elman's simple recurrent network (Elman 1990) with tanh, as torch.nn."""

    name = "rnn_tanh"
    gates, states = ("h",), ("h",)

    @staticmethod
    def step(x, r, s, p):
        return tanh(x.h + r.h)


class RNNReLU(Cell):
    """Elman's simple recurrent network with a rectifier (Le et al. 2015), as torch.nn."""

    name = "rnn_relu"
    gates, states = ("h",), ("h",)

    @staticmethod
    def step(x, r, s, p):
        return relu(x.h + r.h)
