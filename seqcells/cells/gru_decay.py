from .activations import exp, sigmoid, softplus, tanh
from .base import Cell


class GRUDecay(Cell):
    """GRU whose state decays between samples: the RNN-Decay of Rubanova et al. 2019 (arXiv:1907.03907).

        d = exp(-ρ Δ) h,  ρ = softplus(rate)
        r, z = σ(W x + U d),  h' = z d + (1 - z) tanh(W_n x + r (U_n d))

    The stream ``elapsed`` (T, N) is Δ, the time since the step before. The row of ``weight_rate_l{k}`` (1, H) is rate;
    U is ``weight_decayed_l{k}`` (3 H, H). With Δ = 0 the equations are those of torch.nn's GRU.
    """

    name = "gru_decay"
    gates, recurrent_gates, states = ("r", "z", "n"), (), ("h",)
    parameters, streams = {"rate": ("rate",)}, {"elapsed": "TB"}
    products = {"decayed": ("r", "z", "n")}

    @staticmethod
    def step(x, r, s, p):
        hidden = exp(-x.elapsed * softplus(p.rate)) * s.h
        of_h = p.decayed(hidden)
        reset, update = sigmoid(x.r + of_h.r), sigmoid(x.z + of_h.z)
        new = tanh(x.n + reset * of_h.n)
        return new + update * (hidden - new)
