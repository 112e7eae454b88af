"""Layers of cells with more than one product a step, and their equations written out in torch for one sequence."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from equations import every
from torch.nn.functional import layer_norm

import seqcells
from seqcells import cells
from seqcells.cells import REGISTRY, Cell, Product, units
from seqcells.cells.activations import sigmoid, tanh

T, N, IN, H, HEADS = 4, 3, 3, 4, 2
sig = torch.sigmoid


class Uneven(Cell):
    """Two thin matrices in place of one, and a rate for each head."""

    name = "uneven"
    gates, recurrent_gates, states = ("h",), (), ("h",)
    sizes, options = {"K": "rank"}, {"heads": 2}
    products = {"down": Product(("k",), "KH", bias=False), "up": Product(("h",), "HK")}
    products |= {"open": Product(("open",), "NH"), "spread": Product(("s",), "HN", bias=False)}
    parameters = {"decay": {"rate": "N"}}

    @staticmethod
    def step(x, r, s, p):
        gate = sigmoid(p.open(s.h))
        new = tanh(x.h + p.up(p.down(s.h)) + p.spread(gate) + units.max(s.h, p.heads))
        return gate * p.rate * s.h + new


OWN = every()
CELLS = [cells.GRUResetBefore, cells.LayerNormLSTM, cells.LayerNormGRU, cells.MGU, cells.MultiplicativeLSTM]
CELLS += [cells.RecurrentHighway, cells.BlockGRU, cells.MultiHeadSLSTM]
OTHERS = [Uneven, *(OWN[name] for name in ("antisymmetric_rnn", "tau_gru", "fast_grnn", "echo_state", "dreamer_core"))]
LAYERS, MODULES = {}, {}
for _cell in CELLS + OTHERS:
    LAYERS[_cell.name], MODULES[_cell.name] = seqcells.define(_cell)
    del REGISTRY[_cell.name]
RecurrentHighway, RecurrentHighwayCell = LAYERS["recurrent_highway"], MODULES["recurrent_highway"]  # for pickle


@contextmanager
def in_registry() -> Iterator[None]:
    """Register the cells only for a while, because other tests go through the whole registry."""
    for cell in CELLS + OTHERS:
        cells.register(cell)
    yield
    for cell in CELLS + OTHERS:
        del REGISTRY[cell.name]


# Each direct form: (w, x, states) → new states, for one sequence.


def times(w, name, v):
    return w[f"weight_{name}"] @ v + w.get(f"bias_{name}", 0)


def gru_reset_before(w, x, h):
    (xr, xz, xn), (hr, hz) = times(w, "ih", x).chunk(3), times(w, "hh", h).chunk(2)
    z = sig(xz + hz)
    return ((1 - z) * torch.tanh(xn + times(w, "candidate", sig(xr + hr) * h)) + z * h,)


def layer_norm_lstm(w, x, h, c):
    of_x = layer_norm(times(w, "ih", x), (4 * H,), w["weight_norm_x"].flatten(), w["weight_norm_bias"].flatten())
    i, f, g, o = (of_x + layer_norm(times(w, "hh", h), (4 * H,), w["weight_norm_h"].flatten())).chunk(4)
    c = sig(f) * c + sig(i) * torch.tanh(g)
    return sig(o) * torch.tanh(layer_norm(c, (H,), *w["weight_norm_c"])), c


def layer_norm_gru(w, x, h):
    of_x, of_h, b = times(w, "ih", x), times(w, "hh", h), w["weight_norm_bias"]
    of_gates = layer_norm(of_x[: 2 * H], (2 * H,), w["weight_norm_x"][:2].flatten(), b[:2].flatten())
    r, z = sig(of_gates + layer_norm(of_h[: 2 * H], (2 * H,), w["weight_norm_h"][:2].flatten())).chunk(2)
    n = layer_norm(of_x[2 * H :], (H,), w["weight_norm_x"][2], b[2])
    n = torch.tanh(n + r * layer_norm(of_h[2 * H :], (H,), w["weight_norm_h"][2], b[3]))
    return ((1 - z) * n + z * h,)


def mgu(w, x, h):
    xf, xh = times(w, "ih", x).chunk(2)
    f = sig(xf + times(w, "hh", h))
    return ((1 - f) * h + f * torch.tanh(xh + times(w, "candidate", f * h)),)


def multiplicative_lstm(w, x, h, c):
    m, *rest = times(w, "ih", x).chunk(5)
    of_m = times(w, "intermediate", m * times(w, "hh", h)).chunk(4)
    i, f, g, o = (a + b for a, b in zip(rest, of_m, strict=True))
    c = sig(f) * c + sig(i) * torch.tanh(g)
    return sig(o) * torch.tanh(c), c


def recurrent_highway(w, x, h):
    of_h, of_t = (times(w, "ih", x) + times(w, "hh", h)).chunk(2)
    h = sig(of_t) * torch.tanh(of_h) + (1 - sig(of_t)) * h
    for name in ("deeper1", "deeper2"):
        of_h, of_t = times(w, name, h).chunk(2)
        h = sig(of_t) * torch.tanh(of_h) + (1 - sig(of_t)) * h
    return (h,)


def by_head(w, gates):
    """The recurrent weight, whose blocks are stored side by side, as a block-diagonal matrix."""
    blocks = w["weight_hh"].view(gates, HEADS, H // HEADS, H // HEADS)
    return w | {"weight_hh": torch.cat([torch.block_diag(*each) for each in blocks])}


def block_gru(w, x, h):
    gain, bias = w["weight_norm"].flatten(), w["weight_norm_bias"].flatten()
    r, n, z = layer_norm(times(w, "ih", x) + times(by_head(w, 3), "hh", h), (3 * H,), gain, bias).chunk(3)
    z = sig(z - 1)
    return (z * torch.tanh(sig(r) * n) + (1 - z) * h,)


def multi_head_slstm(w, x, h, c, n, m):
    """Without the stabiliser: c and n are ours times exp(m), and m stays zero."""
    i, f, z, o = (times(w, "ih", x) + times(by_head(w, 4), "hh", h)).chunk(4)
    c, n = sig(f) * c + torch.exp(i) * torch.tanh(z), sig(f) * n + torch.exp(i)
    return sig(o) * c / n, c, n, m


def uneven(w, x, h):
    gate = sig(times(w, "open", h))
    largest = h.view(HEADS, -1).amax(1)
    of_h = times(w, "up", w["weight_down"] @ h) + w["weight_spread"] @ gate
    each = H // HEADS
    new = torch.tanh(times(w, "ih", x) + of_h + largest.repeat_interleave(each))
    return ((gate * w["weight_decay"][0]).repeat_interleave(each) * h + new,)


def antisymmetric_rnn(w, x, h):
    of_h = (w["weight_hh"] - w["weight_hh"].T) @ h + w.get("bias_hh", 0)
    return (h + 0.1 * torch.tanh(times(w, "ih", x) + of_h - 0.01 * h),)


def tau_gru(w, x, h, one, two, three):
    (u, z, g, a), (hu, hg, ha) = times(w, "ih", x).chunk(4), times(w, "hh", h).chunk(3)
    new = torch.tanh(u + hu) + sig(a + ha) * torch.tanh(z + times(w, "delayed", three))
    return (1 - sig(g + hg)) * h + sig(g + hg) * new, h, one, two


def fast_grnn(w, x, h):
    shared, (bz, bh) = times(w, "ih", x) + times(w, "hh", h), w["weight_bias"]
    z = sig(shared + bz)
    return ((sig(w["weight_zeta"]) * (1 - z) + sig(w["weight_nu"])) * torch.tanh(shared + bh) + z * h,)


DIRECT = {
    each.__name__: each
    for each in (
        *(gru_reset_before, layer_norm_lstm, layer_norm_gru, mgu, multiplicative_lstm, recurrent_highway, block_gru),
        *(multi_head_slstm, uneven, antisymmetric_rnn, tau_gru, fast_grnn),
    )
}
OPTIONS = {"block_gru": {"heads": HEADS}, "multi_head_slstm": {"heads": HEADS}, "uneven": {"heads": HEADS, "rank": 3}}


def make(name, **options):
    torch.manual_seed(1)
    layer = LAYERS[name](IN, H, dtype=torch.float64, **OPTIONS.get(name, {}), **options)
    with torch.no_grad():  # not ones and zeros, which would hide errors in what is multiplied by them
        for parameter in layer.parameters():
            parameter.add_(torch.rand_like(parameter) / 2)
    return layer


def directly(name, layer, x, hx, lengths, reset):
    """Output and final states, one sequence after another."""
    names = dict(layer.named_parameters())
    directions = ("", "_reverse") if layer.bidirectional else ("",)
    finals = []
    for k in range(layer.num_layers):
        sides = []
        for d, suffix in enumerate(directions):
            end = f"_l{k}{suffix}"
            w = {name.removesuffix(end): p for name, p in names.items() if name.endswith(end)}
            outputs, ended = [], []
            for n in range(N):
                begin = [state[k * len(directions) + d, n] for state in hx]
                states, output = begin, {}
                for t in range(lengths[n])[:: -1 if d else 1]:
                    boundary = t + 1 if d else t
                    if boundary < lengths[n] and reset[boundary, n]:
                        states = [torch.zeros_like(state) for state in begin]
                    states = DIRECT[name](w, x[t, n], *states)
                    output[t] = states[0]
                outputs.append(torch.stack([output.get(t, torch.zeros_like(begin[0])) for t in range(T)]))
                ended.append(states)
            sides.append(torch.stack(outputs, 1))
            finals.append([torch.stack(each) for each in zip(*ended, strict=True)])
        x = torch.cat(sides, -1)
    return x, [torch.stack(each) for each in zip(*finals, strict=True)]
