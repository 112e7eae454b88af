from seqcells.cells import Cell
from seqcells.cells.activations import sigmoid, tanh


class LEM(Cell):
    """Long expressive memory (Rusch et al. 2022, arXiv:2110.04744): two states with time steps of their own; the second
    product is of the new z."""

    name = "lem"
    gates, recurrent_gates, states = ("dy", "dz", "z", "y"), ("dy", "dz", "z"), ("y", "z")
    products = {"slow": ("y",)}
    options = {"dt": 1.0}

    @staticmethod
    def step(x, r, s, p):
        step_y, step_z = p.dt * sigmoid(x.dy + r.dy), p.dt * sigmoid(x.dz + r.dz)
        z = s.z + step_z * (tanh(x.z + r.z) - s.z)
        y = s.y + step_y * (tanh(x.y + p.slow(z)) - s.y)
        return y, z
