"""Cells of one state, or of two that gates mix, whose gates see the past of all units."""

from functools import partial

import torch
from torch.nn.functional import relu6, softplus

from seqcells.cells.activations import tanh as tanh_activation

from .loop import hh, ih, joined, loop, sig, tanh


def rows(weight, bias, v):
    return v @ weight.T + bias


@loop("atr", "ATR")
def atr(w, x, h):
    p, q = ih(w, x), hh(w, h)
    return sig(p + q) * p + sig(p - q) * h


@loop("nbr", "NBR")
def nbr(w, x, h):
    (a, c, n), (of_a, of_c) = ih(w, x).chunk(3, -1), hh(w, h).chunk(2, -1)
    a, c = 1 + tanh(a + of_a), sig(c + of_c)
    return c * h + (1 - c) * tanh(n + a * h)


@loop("cfn", "CFN")
def cfn(w, x, h):
    (horizontal, vertical, n), (of_0, of_1) = ih(w, x).chunk(3, -1), hh(w, h).chunk(2, -1)
    return sig(horizontal + of_0) * tanh(h) + sig(vertical + of_1) * tanh(n)


def two_biases(w):
    """Their gate and candidate have two biases each; ours have two in common and one each."""
    rest = {name: w[name] for name in ("weight_ih", "weight_hh")}
    rest |= {name: w[f"weight_{name}"] for name in ("zeta", "nu")}
    twice = {name: torch.cat([w[name], w[name]]) for name in ("bias_ih", "bias_hh")}
    return rest | twice | {"bias_ih": twice["bias_ih"] + w["weight_bias"].flatten()}


def fast_grnn(w, x, h, gate):
    shared = x @ w.weight_ih.T + h @ w.weight_hh.T
    (x_z, x_n), (h_z, h_n) = w.bias_ih.chunk(2), w.bias_hh.chunk(2)
    z = gate(shared + x_z + h_z)
    return (sig(w.zeta) * (1 - z) + sig(w.nu)) * tanh(shared + x_n + h_n) + z * h


loop("fast_grnn", "FastGRNN", two_biases, gate_activation=tanh_activation)(partial(fast_grnn, gate=tanh))
loop("fast_grnn", "", two_biases)(partial(fast_grnn, gate=sig))


@loop("intersection_rnn", "IntersectionRNN")
def intersection_rnn(w, x, h):
    y, n, g_y, g_h = (ih(w, x) + hh(w, h)).chunk(4, -1)
    y = sig(g_y) * x + (1 - sig(g_y)) * torch.relu(y)
    return y, sig(g_h) * h + (1 - sig(g_h)) * tanh(n)


def janet(w, x, h, beta):
    s, n = (ih(w, x) + hh(w, h)).chunk(2, -1)
    return sig(s) * h + (1 - sig(s - beta)) * tanh(n)


def of_one_state(module, x, h):
    return module(x, (h, h))[1]


def with_beta(w):
    return {**w, "beta": torch.ones(())}


loop("janet_beta", "JANET", with_beta, call=of_one_state)(lambda w, x, h: janet(w, x, h, w.beta))
loop("janet", "")(partial(janet, beta=0.0))


def lem(w, x, h, c, renewed):
    (x_h, x_c, n_c, n_h), (h_h, h_c, of_c) = ih(w, x).chunk(4, -1), hh(w, h).chunk(3, -1)
    step_h, step_c = 0.5 * sig(x_h + h_h), 0.5 * sig(x_c + h_c)
    new = (1 - step_c) * c + step_c * tanh(n_c + of_c)
    h = (1 - step_h) * h + step_h * tanh(n_h + rows(w.weight_ch, w.bias_ch, new if renewed else c))
    return h, h, new


loop("lem", "LEM", joined(ch="slow"), {"dt": 0.5}, dt=0.5, renewed=False)(partial(lem, renewed=False))
loop("lem", "", joined(ch="slow"), dt=0.5)(partial(lem, renewed=True))


@loop("light_ru", "LightRU")
def light_ru(w, x, h):
    n, f = ih(w, x).chunk(2, -1)
    f = sig(f + hh(w, h))
    return (1 - f) * h + f * tanh(n)


@loop("ligru", "LiGRU")
def ligru(w, x, h):
    z, n = (ih(w, x) + hh(w, h)).chunk(2, -1)
    return (1 - sig(z)) * torch.relu(n) + sig(z) * h


@loop("mgu", "MGU", joined(hh="hh candidate"))
def mgu(w, x, h):
    """That of Flax resets after the product, and so is another cell."""
    (f, n), weights, biases = ih(w, x).chunk(2, -1), w.weight_hh.chunk(2), w.bias_hh.chunk(2)
    f = sig(f + rows(weights[0], biases[0], h))
    return f * tanh(n + rows(weights[1], biases[1], f * h)) + (1 - f) * h


@loop("minimal_rnn", "MinimalRNN", joined(mm="latent"))
def minimal_rnn(w, x, h):
    z = tanh(ih(w, x))
    u = sig(hh(w, h) + z @ w.weight_mm.T)
    return u * h + (1 - u) * z


@loop("miru1", "MiRU1", joined(hh="hh candidate"), {"update_coefficient": 0.7}, update=0.7)
def miru1(w, x, h):
    (r, n), weights, biases = ih(w, x).chunk(2, -1), w.weight_hh.chunk(2), w.bias_hh.chunk(2)
    r = sig(r + rows(weights[0], biases[0], h))
    return 0.7 * h + (1 - 0.7) * tanh(n + rows(weights[1], biases[1], r * h))


@loop(
    "miru2",
    "MiRU2",
    joined(hh="candidate"),
    {"update_coefficient": 0.7, "reset_coefficient": 0.2},
    reset=0.2,
    update=0.7,
)
def miru2(w, x, h):
    return 0.7 * h + (1 - 0.7) * tanh(ih(w, x) + hh(w, 0.2 * h))


@loop("linear_mut1", "MUT1", joined(hh="hh candidate"))
def mut1(w, x, h):
    (z, r, n), weights, biases = ih(w, x).chunk(3, -1), w.weight_hh.chunk(2), w.bias_hh.chunk(2)
    r = sig(r + rows(weights[0], biases[0], h))
    return mixed(sig(z), tanh(rows(weights[1], biases[1], r * h) + tanh(n)), h)


@loop("linear_mut2", "MUT2", joined(hh="hh candidate"))
def mut2(w, x, h):
    (z, r, n), weights, biases = ih(w, x).chunk(3, -1), w.weight_hh.chunk(3), w.bias_hh.chunk(3)
    z, r = sig(z + rows(weights[0], biases[0], h)), sig(r + rows(weights[1], biases[1], h))
    return mixed(z, tanh(n + rows(weights[2], biases[2], r * h)), h)


@loop("mut3", "MUT3", joined(hh="update hh candidate"))
def mut3(w, x, h):
    (z, r, n), weights, biases = ih(w, x).chunk(3, -1), w.weight_hh.chunk(3), w.bias_hh.chunk(3)
    z, r = sig(z + rows(weights[0], biases[0], tanh(h))), sig(r + rows(weights[1], biases[1], h))
    return mixed(z, tanh(n + rows(weights[2], biases[2], r * h)), h)


def mixed(z, candidate, h):
    return candidate * z + h * (1 - z)


def with_the_input(block):
    """The paper's mutants are theirs with the identity, and no bias, as one block of the input's weight."""

    def weights(w):
        made, count = joined(hh="hh candidate")(w), len(w["weight_ih"])
        size = count // 2
        weight, bias = list(w["weight_ih"].split(size)), list(w["bias_ih"].split(size))
        weight.insert(block, torch.eye(size, dtype=weight[0].dtype))
        bias.insert(block, torch.zeros_like(bias[0]))
        return made | {"weight_ih": torch.cat(weight), "bias_ih": torch.cat(bias)}

    return weights


loop("mut1", "MUT1", with_the_input(2))(mut1)
loop("mut2", "MUT2", with_the_input(1))(mut2)


@loop("sgrn", "SGRN")
def sgrn(w, x, h):
    f = sig(ih(w, x) + hh(w, h))
    return tanh((1 - f) * ih(w, x) + f * h)


def sgu(w, x, h, output):
    (g, z), weights, biases = ih(w, x).chunk(2, -1), w.weight_hh.chunk(2), w.bias_hh.chunk(2)
    g = tanh(rows(weights[0], biases[0], g * h))
    z = relu6(z + rows(weights[1], biases[1], h) + 3) / 6  # torch's own has float32's sixth in its gradient
    return (1 - z) * h + z * output(w, g * h)


loop("sgu", "SGU", joined(hh="gate hh"))(partial(sgu, output=lambda w, v: softplus(v)))
loop("dsgu", "DSGU", joined(hh="gate hh", ho="out"))(partial(sgu, output=lambda w, v: sig(v @ w.weight_ho.T)))


@loop("star", "STAR")
def star(w, x, h):
    z, k = ih(w, x).chunk(2, -1)
    k = sig(k + hh(w, h))
    return tanh((1 - k) * h + k * tanh(z))


def delay_after_u(w):
    """Their recurrent weight has the delayed product's block after u's."""
    made = {name: v for name, v in w.items() if not name.endswith("_delayed")}
    for kind in ("weight", "bias"):
        u, *others = w[f"{kind}_hh"].chunk(3)
        made[f"{kind}_hh"] = torch.cat([u, w[f"{kind}_delayed"], *others])
    return made


def tau_gru(w, x, h, *past):
    (u, z, g, a), weights, biases = ih(w, x).chunk(4, -1), w.weight_hh.chunk(4), w.bias_hh.chunk(4)
    u, g, a = (v + rows(weights[k], biases[k], h) for k, v in ((0, u), (2, g), (3, a)))
    z = tanh(z + rows(weights[1], biases[1], (h, *past)[-1]))
    new = (1 - sig(g)) * h + sig(g) * (tanh(u) + sig(a) * z)
    return new, new, *(h, *past)[:-1]


def with_delayed(module, x, h, *past):
    return module(x, h, past[-1]), h, *past[:-1]


loop("tau_gru", "tauGRU", delay_after_u, call=with_delayed)(tau_gru)
loop("tau_gru", "tauGRU", delay_after_u, call=with_delayed, delay=1)(tau_gru)
loop("tau_gru", "", delay_after_u, delay=0)(tau_gru)


@loop("ugrnn", "UGRNN")
def ugrnn(w, x, h):
    n, g = (ih(w, x) + hh(w, h)).chunk(2, -1)
    return sig(g) * h + (1 - sig(g)) * tanh(n)


def layers(w):
    """Of input and state together is the first product."""
    first = torch.cat([w["weight_ih"], w["weight_hh"]], -1), w["bias_ih"] + w["bias_hh"]
    return {"layers": [first, *((w[f"weight_deeper{k}"], w[f"bias_deeper{k}"]) for k in (1, 2))]}


@loop("recurrent_highway", "", layers)
@loop("uncoupled_recurrent_highway", "", layers)
def highway(w, x, h):
    """Theirs cannot be made; it has a carry gate also where transform and carry are coupled, which nothing reads."""
    for k, (weight, bias) in enumerate(w.layers):
        n, t, *c = rows(weight, bias, torch.cat([x, h], -1) if k == 0 else h).split(h.shape[1], -1)
        h = tanh(n) * sig(t) + h * sig(c[0]) if c else (tanh(n) - h) * sig(t) + h
    return h
