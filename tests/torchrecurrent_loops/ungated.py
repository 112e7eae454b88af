"""Cells of one state whose gates, if any, see their own unit alone, and oscillators."""

import torch

from .loop import hh, ih, loop, sig, tanh


def antisymmetric(w, gamma):
    return w.weight_hh - w.weight_hh.T - gamma * torch.eye(len(w.weight_hh), dtype=w.weight_hh.dtype)


@loop("antisymmetric_rnn", "AntisymmetricRNN", arguments={"epsilon": 0.1, "gamma": 0.01})
def antisymmetric_rnn(w, x, h):
    return h + 0.1 * tanh(ih(w, x) + h @ antisymmetric(w, 0.01).T + w.bias_hh)


def bias_of_the_candidate_alone(w):
    """Their gate has no recurrent bias; ours has it in both sums."""
    return {**w, "bias_ih": w["bias_ih"] + torch.cat([w["bias_hh"], torch.zeros_like(w["bias_hh"])])}


@loop(
    "gated_antisymmetric_rnn",
    "GatedAntisymmetricRNN",
    bias_of_the_candidate_alone,
    {"epsilon": 0.3, "gamma": 0.2},
    epsilon=0.3,
    gamma=0.2,
)
def gated_antisymmetric_rnn(w, x, h):
    (z, n), of_h = ih(w, x).chunk(2, -1), h @ antisymmetric(w, 0.2).T
    return h + 0.3 * sig(z + of_h) * tanh(n + of_h + w.bias_hh)


@loop("br", "BR", lambda w: vector(w, "recurrent") | {"bias_hh": torch.zeros_like(w["weight_recurrent"]).flatten()})
def br(w, x, h):
    a, c, n = ih(w, x).chunk(3, -1)
    (w_a, w_c), (b_a, b_c) = w.weight_hh.chunk(2), w.bias_hh.chunk(2)
    a, c = 1 + tanh(a + w_a * h + b_a), sig(c + w_c * h + b_c)
    return c * h + (1 - c) * tanh(n + a * h)


def vector(w, ours, theirs="weight_hh"):
    """Rows of ours, one after the other, in the place of a weight of theirs."""
    rest = {name: v for name, v in w.items() if name != f"weight_{ours}"}
    return rest | {theirs: w[f"weight_{ours}"].flatten()}


@loop("indrnn", "IndRNN", lambda w: without_second_bias(vector(w, "recurrent", "vector_u")), {"nonlinearity": "relu"})
def indrnn(w, x, h):
    return torch.relu(ih(w, x) + w.vector_u * h + w.bias_hh)


def without_second_bias(w):
    return {**w, "bias_hh": torch.zeros_like(w["bias_ih"])}


@loop("trnn", "TRNN")
def trnn(w, x, h):
    z, f = ih(w, x).chunk(2, -1)
    return sig(f) * h + (1 - sig(f)) * z


def of_the_last_input(w):
    rest = {name: v for name, v in w.items() if name != "weight_last"}
    return without_second_bias(rest) | {"weight_hh": w["weight_last"]}


@loop("tgru", "TGRU", of_the_last_input)
def tgru(w, x, h, last):
    z, f, o = (ih(w, x) + hh(w, last)).chunk(3, -1)
    h = sig(f) * h + z * tanh(o)
    return h, h, x


@loop("tlstm", "TLSTM", of_the_last_input)
def tlstm(w, x, c, last):
    z, f, o = (ih(w, x) + hh(w, last)).chunk(3, -1)
    c = sig(f) * c + (1 - sig(f)) * z
    return c * tanh(o), c, x


def numbers(w):
    """Learnable numbers, which are called as they are there."""
    names = {f"weight_{name}": name for name in ("alpha", "beta", "zeta", "nu")}
    return {names.get(name, name): v for name, v in w.items()}


@loop("fast_rnn", "FastRNN", numbers)
def fast_rnn(w, x, h):
    return sig(w.alpha) * tanh(ih(w, x) + hh(w, h)) + sig(w.beta) * h


def oscillators(w):
    """The weight of the velocities is called that of the cell state."""
    names = {f"{kind}_velocity": f"{kind}_ch" for kind in ("weight", "bias")}
    return {names.get(name, name): v for name, v in w.items()}


@loop("cornn", "coRNN", oscillators)
def cornn(w, x, y, z, dt=0.1, gamma=1.0, epsilon=1.0):
    pushed = tanh(ih(w, x) + hh(w, y) + z @ w.weight_ch.T + w.bias_ch)
    z = z + dt * pushed - dt * gamma * y - dt * epsilon * z
    y = y + dt * z
    return y, y, z


@loop("cornn", "", oscillators, dt=0.2, gamma=2.0, epsilon=3.0, implicit=True)
def cornn_implicit(w, x, y, z):
    """Not theirs: the paper's scheme whose damping is by the new velocity."""
    pushed = tanh(ih(w, x) + hh(w, y) + z @ w.weight_ch.T + w.bias_ch)
    z = (z + 0.2 * pushed - 0.2 * 2 * y) / (1 + 0.2 * 3)
    y = y + 0.2 * z
    return y, y, z


@loop(
    "unicornn",
    "UnICORNN",
    lambda w: without_second_bias(vector(vector(w, "recurrent"), "control", "weight_ch")),
    {"alpha": 0.5},
)
def unicornn(w, x, y, z):
    step = 0.1 * sig(w.weight_ch)
    z = z - step * (tanh(ih(w, x) + y * w.weight_hh + w.bias_hh) + 0.5 * y)
    y = y + step * z
    return y, y, z


@loop("scrn", "", context_size=5, output_size=3)
def scrn(w, x, h, s):
    """Not theirs, which multiplies R and the output y: the paper's, which multiplies R and the hidden units."""
    s = (1 - 0.95) * (x @ w.weight_slow.T) + 0.95 * s
    h = sig(ih(w, x) + hh(w, h) + s @ w.weight_context.T)
    y = h @ w.weight_fast_y.T + w.bias_fast_y + s @ w.weight_slow_y.T
    return torch.softmax(y, -1), h, s
