from seqcells.cells import Cell
from seqcells.cells.activations import sigmoid, tanh


class UnICORNN(Cell):
    """Undamped independent oscillators (Rusch & Mishra 2021, arXiv:2103.05487), symplectic: no product of a state."""

    name = "unicornn"
    gates, recurrent_gates, states = ("z",), (), ("y", "z")
    parameters = {"recurrent": ("w",), "control": ("c",)}
    options = {"dt": 0.1, "alpha": 0.5}

    @staticmethod
    def step(x, r, s, p):
        dt = p.dt * sigmoid(p.c)
        velocity = s.z - dt * (tanh(p.w * s.y + x.z) + p.alpha * s.y)
        return s.y + dt * velocity, velocity
