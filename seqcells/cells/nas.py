from .activations import relu, sigmoid, tanh
from .base import Cell


class NAS(Cell):
    """The cell that architecture search found (Zoph & Le 2017, arXiv:1611.01578), as TensorFlow's NASCell has it.

    With k for W_k x + U_k h, and d for (W_d x) (U_d h):

        c' = tanh(tanh(σ(a) relu(b)) + c) tanh(σ(c) + relu(d))
        h' = tanh(c' tanh(tanh(tanh(e) σ(f)) + σ(tanh(g) + σ(h))))

    Option: ``multiplied`` (True). In torchrecurrent's code d is W_d x + U_d h, as with ``multiplied=False``.
    """

    name = "nas"
    gates, states = ("a", "b", "c", "d", "e", "f", "g", "h"), ("h", "c")
    options = {"multiplied": True}

    @staticmethod
    def step(x, r, s, p):
        first = tanh(sigmoid(x.a + r.a) * relu(x.b + r.b))
        second = tanh(sigmoid(x.c + r.c) + relu(x.d * r.d if p.multiplied else x.d + r.d))
        third = tanh(tanh(x.e + r.e) * sigmoid(x.f + r.f))
        fourth = sigmoid(tanh(x.g + r.g) + sigmoid(x.h + r.h))
        cell = tanh(first + s.c) * second
        return tanh(cell * tanh(third + fourth)), cell
