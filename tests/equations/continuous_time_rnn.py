from seqcells.cells import Cell
from seqcells.cells.activations import expm1, sigmoid, softplus


class ContinuousTimeRNN(Cell):
    """Continuous-time RNN (Funahashi & Nakamura 1993, doi:10.1016/S0893-6080(05)80125-X), a rate for each unit.

    The input is held for the time elapsed; ``euler`` takes one explicit step, else the decay is exact.
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
