from .activations import relu, sigmoid, tanh
from .base import Cell


class IntersectionRNN(Cell):
    """Intersection RNN, or +RNN (Collins et al. 2017, arXiv:1611.09913): gated in depth and in time.

        y' = g_y x + (1 - g_y) relu(W_y x + U_y h),      g_y = σ(W_gy x + U_gy h)
        h' = g_h h + (1 - g_h) tanh(W_h x + U_h h),      g_h = σ(W_gh x + U_gh h)

    The output is y', which is no state. The input is as large as the state. torchrecurrent has the same equations and
    weights.
    """

    name = "intersection_rnn"
    gates, states = ("y", "h", "gy", "gh"), ("h",)
    streams = {"input": "TBH"}
    output = "y"

    @staticmethod
    def step(x, r, s, p):
        y, h = relu(x.y + r.y), tanh(x.h + r.h)
        gate_y, gate_h = sigmoid(x.gy + r.gy), sigmoid(x.gh + r.gh)
        return h + gate_h * (s.h - h), y + gate_y * (x.input - y)
