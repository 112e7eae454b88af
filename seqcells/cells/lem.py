from .activations import sigmoid, tanh
from .base import Cell


class LEM(Cell):
    """Long expressive memory (Rusch et al. 2022, arXiv:2110.04744): two states with time steps of their own.

        Δ_y = dt σ(W_dy x + U_dy y),  Δ_z = dt σ(W_dz x + U_dz y)
        z' = z + Δ_z (tanh(W_z x + U_z y) - z)
        y' = y + Δ_y (tanh(W_y x + V z') - y)

    V is ``weight_slow_l{k}`` (H, H). Options: ``dt`` (1.0); ``renewed`` (True): V is applied to z'. torchrecurrent's
    code applies V to z, as ``renewed=False`` does. The authors' code has W_y before W_z.
    """

    name = "lem"
    gates, recurrent_gates, states = ("dy", "dz", "z", "y"), ("dy", "dz", "z"), ("y", "z")
    products = {"slow": ("y",)}
    options = {"dt": 1.0, "renewed": True}

    @staticmethod
    def step(x, r, s, p):
        step_y, step_z = p.dt * sigmoid(x.dy + r.dy), p.dt * sigmoid(x.dz + r.dz)
        z = s.z + step_z * (tanh(x.z + r.z) - s.z)
        y = s.y + step_y * (tanh(x.y + p.slow(z if p.renewed else s.z)) - s.y)
        return y, z
