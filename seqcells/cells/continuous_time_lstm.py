from .activations import exp, sigmoid, softplus, tanh
from .base import Cell


class ContinuousTimeLSTM(Cell):
    """LSTM of the neural Hawkes process (Mei & Eisner 2017, arXiv:1612.09328): c decays to a target between events.

        e = t + (c - t) exp(-ρ Δ),  d = o tanh(e)
        i, f, j, k, o' = σ(W x + U d),  g = tanh((W_g x + U_g d) / 2),  ρ' = softplus(W_ρ x + U_ρ d)
        c' = f e + i g,  t' = k t + j g,  h' = o' tanh(c')

    The stream ``elapsed`` (T, N) is Δ, the time since the event before. e and d are c and h at the time of the event;
    h' is the state just after the event. The states are h, c, the target t, the rate ρ and the output gate o.
    """

    name = "continuous_time_lstm"
    gates, states = ("i", "f", "g", "o", "j", "k", "rho"), ("h", "c", "t", "rho", "o")
    streams = {"elapsed": "TB"}

    @staticmethod
    def recurrent_operand(x, s):
        return s.o * tanh(decayed(x, s))

    @staticmethod
    def step(x, r, s, p):
        input, forget = sigmoid(x.i + r.i), sigmoid(x.f + r.f)
        target_input, target_forget = sigmoid(x.j + r.j), sigmoid(x.k + r.k)
        new, output = tanh((x.g + r.g) / 2), sigmoid(x.o + r.o)
        cell = forget * decayed(x, s) + input * new
        target = target_forget * s.t + target_input * new
        return output * tanh(cell), cell, target, softplus(x.rho + r.rho), output


def decayed(x, s):
    """The cell state after the time that has elapsed."""
    return s.t + exp(-x.elapsed * s.rho) * (s.c - s.t)
