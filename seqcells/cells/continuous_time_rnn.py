from .activations import expm1, sigmoid, softplus
from .base import Cell


class ContinuousTimeRNN(Cell):
    """Continuous-time RNN of leaky units for irregular samples (Funahashi & Nakamura 1993,
    doi:10.1016/S0893-6080(05)80125-X; in this form Beer 1995, doi:10.1177/105971239500300405).

        dh/dt = ρ (W x + U σ(h + θ) - h),  ρ = softplus(rate)
        h' = h + (1 - exp(-ρ Δ)) (W x + U σ(h + θ) - h)

    The stream ``elapsed`` (T, N) is Δ, the time that a step takes, in the unit of 1/ρ. The drive is held for that time,
    so the decay is exact. With ``euler`` (False) the step is explicit: ρ Δ in place of 1 - exp(-ρ Δ). The rows of
    ``weight_rate_l{k}`` (2, H) are rate and θ; U is ``weight_fired_l{k}`` (H, H).
    """

    name = "continuous_time_rnn"
    gates, recurrent_gates, states = ("h",), (), ("h",)
    parameters = {"rate": ("rate", "threshold")}
    products, streams = {"fired": ("h",)}, {"elapsed": "TB"}
    options = {"euler": False}

    @staticmethod
    def step(x, r, s, p):
        drive = x.h + p.fired(sigmoid(s.h + p.threshold))
        time = x.elapsed * softplus(p.rate)
        return s.h + (time if p.euler else -expm1(-time)) * (drive - s.h)
