from . import units
from .activations import sigmoid, tanh
from .base import Cell


class LayerNormLSTM(Cell):
    """LSTM with layer norm (Ba et al. 2016, arXiv:1607.06450) of both pre-activations, all gates together, and of c.

        i, f, o = σ(LN(W x) + LN(U h)),  g = tanh(LN(W x) + LN(U h))
        c' = f c + i g,  h' = o tanh(LN(c'))

    The gains are the rows of ``weight_norm_x_l{k}`` and ``weight_norm_h_l{k}`` (4, H each), the sum's biases are the
    rows of ``weight_norm_bias_l{k}`` (4, H). ``weight_norm_c_l{k}`` (2, H) has c's gain and bias. Gains begin at one,
    biases at zero.
    """

    name = "layer_norm_lstm"
    gates, states = ("i", "f", "g", "o"), ("h", "c")
    parameters = {
        "norm_x": ("xi", "xf", "xg", "xo"),
        "norm_h": ("hi", "hf", "hg", "ho"),
        "norm_bias": ("bi", "bf", "bg", "bo"),
        "norm_c": ("gain", "bias"),
    }
    initial = {
        **dict.fromkeys(("xi", "xf", "xg", "xo", "hi", "hf", "hg", "ho", "gain"), 1.0),
        **dict.fromkeys(("bi", "bf", "bg", "bo", "bias"), 0.0),
    }

    @staticmethod
    def step(x, r, s, p):
        xi, xf, xg, xo = units.normalised(*x)
        hi, hf, hg, ho = units.normalised(*r)
        input = sigmoid(p.xi * xi + p.hi * hi + p.bi)
        forget = sigmoid(p.xf * xf + p.hf * hf + p.bf)
        candidate = tanh(p.xg * xg + p.hg * hg + p.bg)
        output = sigmoid(p.xo * xo + p.ho * ho + p.bo)
        cell = forget * s.c + input * candidate
        return output * tanh(units.layer_norm(cell, p.gain, p.bias)), cell
