from .activations import tanh
from .base import Cell


class CoRNN(Cell):
    """Coupled oscillators (Rusch & Mishra 2021, arXiv:2010.00951), of positions y and velocities z.

        z' = z + dt (tanh(W x + U y + V z) - γ y - ε z)
        y' = y + dt z'

    V is ``weight_velocity_l{k}`` (H, H). Options: ``dt`` (0.1), ``gamma`` (1.0), ``epsilon`` (1.0), and ``implicit``
    (False): damping by z', the paper's other scheme. torchrecurrent has the explicit one, with the same defaults.
    """

    name = "cornn"
    gates, states = ("z",), ("y", "z")
    products = {"velocity": ("z",)}
    options = {"dt": 0.1, "gamma": 1.0, "epsilon": 1.0, "implicit": False}

    @staticmethod
    def step(x, r, s, p):
        force = tanh(x.z + r.z + p.velocity(s.z)) - p.gamma * s.y
        if p.implicit:
            velocity = (s.z + p.dt * force) / (1 + p.dt * p.epsilon)
        else:
            velocity = s.z + p.dt * (force - p.epsilon * s.z)
        return s.y + p.dt * velocity, velocity
