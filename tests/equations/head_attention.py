from seqcells.cells import Cell, Product, units
from seqcells.cells.activations import sigmoid, softplus, tanh


class HeadAttention(Cell):
    """An invented cell with reductions over each head, and with numbers of each head: learnt, given, gated and kept."""

    name = "head_attention"
    gates, recurrent_gates, states = ("a", "h"), ("a", "h"), {"h": "H", "level": "N"}
    parameters = {"norm": ("gain", "bias"), "scale": {"temperature": "N", "rate": "N"}}
    scalars = ("push",)
    streams = {"decay": "TBN"}
    products = {"open": Product(("open",), "NH")}
    options = {"heads": 4}
    kept = ("peak", "total")

    @staticmethod
    def step(x, r, s, p):
        attention = units.softmax((x.a + r.a) * softplus(p.temperature), p.heads)
        peak = units.max(attention * s.h, p.heads)
        level = s.level + sigmoid(p.rate) * (peak + p.push * units.max(s.level) - x.decay * s.level)
        value = units.layer_norm(x.h + r.h, p.gain, p.bias, heads=p.heads)
        total = units.sum(tanh(level)) + units.mean(s.h)
        gate = sigmoid(p.open(s.h) + p.push * level)
        return s.h + gate * (tanh(value + s.level + p.push * total) * attention - s.h), level, peak, total
