from .activations import sigmoid, tanh
from .base import Cell


class UnICORNN(Cell):
    """Undamped independent oscillators (Rusch & Mishra 2021, arXiv:2103.05487): no product of a state.

        z' = z - dt σ(c) (tanh(w y + W x) + α y)
        y' = y + dt σ(c) z'

    w is ``weight_recurrent_l{k}`` and c ``weight_control_l{k}``, both (1, H). Options: ``dt`` (0.1), ``alpha`` (0.5).
    torchrecurrent has the same equations, α = 0 by default, and a second bias. Its w and c begin as in the authors'
    code, uniform in (0, 1) and (-0.1, 0.1).
    """

    name = "unicornn"
    gates, recurrent_gates, states = ("z",), (), ("y", "z")
    parameters = {"recurrent": ("w",), "control": ("c",)}
    options = {"dt": 0.1, "alpha": 0.5}

    @staticmethod
    def step(x, r, s, p):
        dt = p.dt * sigmoid(p.c)
        velocity = s.z - dt * (tanh(p.w * s.y + x.z) + p.alpha * s.y)
        return s.y + dt * velocity, velocity
