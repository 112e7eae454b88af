"""Steps written from their papers, where torchrecurrent has no such cell or a different one."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from .loop import Loop, Weights, keep

sig, tanh = torch.sigmoid, torch.tanh


def paper(cell, **options):
    """Register the decorated step: (weights, x, *states, **streams) → the output and the states, or one tensor for
    both."""

    def decorated(step):
        def of_weights(ours, x, states, **streams):
            found = step(Named(ours), x, *states, **streams)
            return found if isinstance(found, tuple) else (found, found)

        keep(Loop(cell, options, of_weights))
        return step

    return decorated


class Named:
    """Parameters by name: ``w("ih", x)`` is the product with that weight plus its bias, if there is one; ``w.name`` is
    the tensor."""

    def __init__(self, parameters: Weights) -> None:
        self.__dict__.update(parameters)

    def __call__(self, name: str, v: Tensor, rows: int = 1) -> Any:
        bias = getattr(self, f"bias_{name}", None)
        product = torch.nn.functional.linear(v, getattr(self, f"weight_{name}"), bias)
        return product.chunk(rows, -1) if rows > 1 else product


@paper("continuous_time_lstm")
def continuous_time_lstm(w, x, h, c, target, rate, o, elapsed):
    c = target + (c - target) * torch.exp(-rate * elapsed[:, None])
    h = o * (2 * sig(2 * c) - 1)
    i, f, z, o, i_target, f_target, rate = (w("ih", x) + w("hh", h)).chunk(7, -1)
    z = 2 * sig(z) - 1
    c, target = sig(f) * c + sig(i) * z, sig(f_target) * target + sig(i_target) * z
    h = sig(o) * (2 * sig(2 * c) - 1)
    return h, h, c, target, torch.log1p(rate.exp()), sig(o)


def continuous_time_rnn(w, x, h, elapsed, euler):
    rate, threshold = w.weight_rate
    drive, time = w("ih", x) + w("fired", sig(h + threshold)), elapsed[:, None] * torch.log1p(rate.exp())
    return h + time * (drive - h) if euler else drive + (h - drive) * torch.exp(-time)


paper("continuous_time_rnn")(partial(continuous_time_rnn, euler=False))
paper("continuous_time_rnn", euler=True)(partial(continuous_time_rnn, euler=True))


@paper("cornn", dt=0.2, gamma=2.0, epsilon=3.0, implicit=True)
def cornn(w, x, y, z):
    """The paper's implicit scheme, which damps by the new velocity."""
    pushed = tanh(w("ih", x) + w("hh", y) + w("velocity", z))
    z = (z + 0.2 * pushed - 0.2 * 2 * y) / (1 + 0.2 * 3)
    y = y + 0.2 * z
    return y, y, z


@paper("echo_state")
def echo_state(w, x, h):
    return h + 0.3 * (tanh(w("ih", x) + w("hh", h)) - h)


@paper("fast_grnn")
def fast_grnn(w, x, h):
    shared = w("ih", x) + w("hh", h)
    b_z, b_n = w.weight_bias
    z = sig(shared + b_z)
    return (sig(w.weight_zeta) * (1 - z) + sig(w.weight_nu)) * tanh(shared + b_n) + z * h


@paper("gru_d")
def gru_d(w, x, h, last, mask, elapsed):
    decay, offset, mean = w.weight_decay
    fading = torch.exp(-torch.relu(decay * elapsed + offset))
    guess = mask * x + (1 - mask) * (fading * last + (1 - fading) * mean)
    h = torch.exp(-torch.relu(w("fade", elapsed))) * h
    (x_r, x_z, x_n), (m_r, m_z, m_n), (h_r, h_z) = w("x", guess, 3), w("m", mask, 3), w("gates", h, 2)
    r, z = sig(x_r + h_r + m_r), sig(x_z + h_z + m_z)
    h = (1 - z) * h + z * tanh(x_n + w("candidate", r * h) + m_n)
    return h, h, mask * x + (1 - mask) * last


@paper("gru_decay")
def gru_decay(w, x, h, elapsed):
    h = h * torch.exp(-elapsed[:, None] * torch.log1p(w.weight_rate[0].exp()))
    (x_r, x_z, x_n), (h_r, h_z, h_n) = w("ih", x, 3), w("decayed", h, 3)
    z = sig(x_z + h_z)
    return (1 - z) * tanh(x_n + sig(x_r + h_r) * h_n) + z * h


@paper("janet")
def janet(w, x, h):
    s, n = (w("ih", x) + w("hh", h)).chunk(2, -1)
    return sig(s) * h + (1 - sig(s)) * tanh(n)


@paper("lem", dt=0.5)
def lem(w, x, y, z):
    (x_y, x_z, n_z, n_y), (h_y, h_z, of_z) = w("ih", x, 4), w("hh", y, 3)
    step_y, step_z = 0.5 * sig(x_y + h_y), 0.5 * sig(x_z + h_z)
    z = (1 - step_z) * z + step_z * tanh(n_z + of_z)
    y = (1 - step_y) * y + step_y * tanh(n_y + w("slow", z))
    return y, y, z


def positive(v):
    return torch.where(v >= 0, v + 0.5, sig(v))


@paper("mingru_log")
def mingru(w, x, h):
    z, c = w("ih", x, 2)
    return (1 - sig(z)) * h + sig(z) * positive(c)


def minlstm(w, x, h, candidate):
    f, i, c = w("ih", x, 3)
    return (sig(f) * h + sig(i) * candidate(c)) / (sig(f) + sig(i))


paper("minlstm")(partial(minlstm, candidate=lambda v: v))
paper("minlstm_log")(partial(minlstm, candidate=positive))


@paper("nas")
def nas(w, x, h, c):
    of_x, of_h = w("ih", x, 8), w("hh", h, 8)
    g = [a + b for a, b in zip(of_x, of_h, strict=True)]
    first, second = tanh(sig(g[0]) * torch.relu(g[1])), tanh(sig(g[2]) + torch.relu(of_x[3] * of_h[3]))
    third, last = tanh(tanh(g[4]) * sig(g[5])), sig(tanh(g[6]) + sig(g[7]))
    c = tanh(first + c) * second
    h = tanh(c * tanh(third + last))
    return h, h, c


@paper("original_lstm")
def original_lstm(w, x, h, c):
    """The squashing functions of the first paper have the ranges -2 to 2 and -1 to 1."""
    i, n, o = (w("ih", x) + w("hh", h)).chunk(3, -1)
    c = c + sig(i) * (4 * sig(n) - 2)
    h = sig(o) * (2 * sig(c) - 1)
    return h, h, c


@paper("recurrent_highway")
@paper("uncoupled_recurrent_highway")
def highway(w, x, h):
    """torchrecurrent's cell cannot be constructed; with coupled gates, nothing reads its carry gate."""
    for product in (lambda h: w("ih", x) + w("hh", h), lambda h: w("deeper1", h), lambda h: w("deeper2", h)):
        n, t, *c = product(h).split(h.shape[1], -1)
        h = tanh(n) * sig(t) + h * sig(c[0]) if c else (tanh(n) - h) * sig(t) + h
    return h


@paper("scrn", context_size=5, output_size=3)
def scrn(w, x, h, s):
    """torchrecurrent's output y is the product of another weight and y itself, where the paper has the hidden units."""
    s = (1 - 0.95) * (x @ w.weight_slow.T) + 0.95 * s
    h = sig(w("ih", x) + w("hh", h) + s @ w.weight_context.T)
    return torch.softmax(w("fast_y", h) + w("slow_y", s), -1), h, s


@paper("tau_gru", delay=0)
def tau_gru(w, x, h):
    (u, z, g, a), (of_u, of_g, of_a) = w("ih", x, 4), w("hh", h, 3)
    new = tanh(u + of_u) + sig(a + of_a) * tanh(z + w("delayed", h))
    return (1 - sig(g + of_g)) * h + sig(g + of_g) * new
