"""LSTMs, and what has their two states."""

from functools import partial

import torch

from .loop import hh, ih, joined, loop, sig, tanh


@loop("control_gate_lstm", "MCLSTM")
def control_gate_lstm(w, x, v, c):
    f, i, o, m, n = (ih(w, x) + hh(w, v)).chunk(5, -1)
    c = sig(f) * c + sig(i) * tanh(n)
    return sig(o) * tanh(c), sig(m) * tanh(c), c


@loop("multiplicative_lstm", "MultiplicativeLSTM", joined(mh="intermediate"))
def multiplicative_lstm(w, x, h, c):
    m, *of_x = ih(w, x).chunk(5, -1)
    of_m = ((m * hh(w, h)) @ w.weight_mh.T + w.bias_mh).chunk(4, -1)
    i, f, n, o = (a + b for a, b in zip(of_x, of_m, strict=True))
    c = sig(f) * c + sig(i) * tanh(n)
    h = sig(o) * tanh(c)
    return h, h, c


def nas(w, x, h, c, multiplied):
    of_x, of_h = ih(w, x).chunk(8, -1), hh(w, h).chunk(8, -1)
    g = [a + b for a, b in zip(of_x, of_h, strict=True)]
    fourth = of_x[3] * of_h[3] if multiplied else g[3]
    first, second = tanh(sig(g[0]) * torch.relu(g[1])), tanh(sig(g[2]) + torch.relu(fourth))
    third, last = tanh(tanh(g[4]) * sig(g[5])), sig(tanh(g[6]) + sig(g[7]))
    c = tanh(first + c) * second
    h = tanh(c * tanh(third + last))
    return h, h, c


loop("nas", "NAS", multiplied=False)(partial(nas, multiplied=False))
loop("nas")(partial(nas, multiplied=True))


def original_lstm(w, x, h, c, input, output):
    i, n, o = (ih(w, x) + hh(w, h)).chunk(3, -1)
    c = c + sig(i) * input(n)
    h = sig(o) * output(c)
    return h, h, c


loop("original_lstm", "OriginalLSTM", rescaled=False)(partial(original_lstm, input=tanh, output=tanh))
loop("original_lstm")(partial(original_lstm, input=lambda v: 2 * tanh(v / 2), output=lambda v: tanh(v / 2)))


def peepholes(w):
    rest = {name: v for name, v in w.items() if name != "weight_peephole"}
    return rest | {"weight_ph": w["weight_peephole"].flatten()}


@loop("peephole_lstm", "PeepholeLSTM", peepholes)
def peephole_lstm(w, x, h, c):
    c, o = with_peepholes(w, ih(w, x) + hh(w, h), c)
    h = o * tanh(c)
    return h, h, c


def with_peepholes(w, gates, c):
    """The cell state and the output gate."""
    (i, f, n, o), (p_i, p_f, p_o) = gates.chunk(4, -1), w.weight_ph.chunk(3)
    c = sig(f + c * p_f) * c + sig(i + c * p_i) * tanh(n)
    return c, sig(o + c * p_o)


def content_apart(w):
    """Their content, the first block of the input's weight, has no bias."""
    bias, *others = w["bias_ih"].chunk(3)
    return {**w, "bias_ih": torch.cat(others), "own_bias": bias}


@loop("ran", "RAN", content_apart)
def ran(w, x, h, c):
    w_n, w_i, w_f = w.weight_ih.chunk(3)
    (b_i, b_f), (h_i, h_f) = w.bias_ih.chunk(2), hh(w, h).chunk(2, -1)
    c = sig(x @ w_i.T + b_i + h_i) * (x @ w_n.T + w.own_bias) + sig(x @ w_f.T + b_f + h_f) * c
    return tanh(c), tanh(c), c


def residual_apart(w):
    """Their residual weight, our last block of the input's, has no bias."""
    (*gates, residual), (*biases, bias) = w["weight_ih"].chunk(5), w["bias_ih"].chunk(5)
    made = {"weight_ih": torch.cat(gates), "bias_ih": torch.cat(biases), "weight_res": residual, "own_bias": bias}
    return joined(proj="projection")(peepholes(w)) | made


@loop("residual_lstm", "ResLSTM", residual_apart)
def residual_lstm(w, x, h, c):
    c, o = with_peepholes(w, ih(w, x) + hh(w, h), c)
    h = o * (tanh(c) @ w.weight_proj.T + x @ w.weight_res.T + w.own_bias)
    return h, h, c


@loop("working_memory_lstm", "WMCLSTM", joined(mh="memory exposed"))
def working_memory_lstm(w, x, h, c):
    i, f, n, o = (ih(w, x) + hh(w, h)).chunk(4, -1)
    w_i, w_f, w_o = w.weight_mh.chunk(3)
    b_i, b_f, b_o = w.bias_mh.chunk(3)
    c = sig(f + tanh(c @ w_f.T + b_f)) * c + sig(i + tanh(c @ w_i.T + b_i)) * tanh(n)
    h = sig(o + tanh(c @ w_o.T + b_o)) * tanh(c)
    return h, h, c
