from seqcells.cells import Cell
from seqcells.cells.activations import relu, sigmoid, tanh


class IntersectionRNN(Cell):
    """Intersection RNN (Collins et al. 2017, arXiv:1611.09913), +RNN: its output y is gated between input and
    candidate, and is no state. The input is as large as the state."""

    name = "intersection_rnn"
    gates, states = ("y", "h", "gy", "gh"), ("h",)
    streams = {"input": "TBH"}
    output = "y"

    @staticmethod
    def step(x, r, s, p):
        y, h = relu(x.y + r.y), tanh(x.h + r.h)
        gate_y, gate_h = sigmoid(x.gy + r.gy), sigmoid(x.gh + r.gh)
        return h + gate_h * (s.h - h), y + gate_y * (x.input - y)
