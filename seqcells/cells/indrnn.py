from .activations import relu
from .base import Cell


class IndRNN(Cell):
    """Independently recurrent network (Li et al. 2018, arXiv:1803.04831): each unit sees only its own past.

    torchrecurrent has tanh in the rectifier's place unless told ``nonlinearity="relu"``, and a second bias.
    """

    name = "indrnn"
    gates, recurrent_gates, states = ("h",), (), ("h",)
    parameters = {"recurrent": ("u",)}

    @staticmethod
    def step(x, r, s, p):
        return relu(x.h + p.u * s.h)
