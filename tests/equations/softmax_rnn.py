from seqcells.cells import Cell, units
from seqcells.cells.activations import exp, sigmoid, softplus, tanh


class SoftmaxRNN(Cell):
    """An invented cell that uses the remaining features of the language.

    A softmax over units with a learnable temperature decides which units are rewritten. States decay with the time
    elapsed between steps, at a learnable rate. The largest unit and the attention's result are added to all units. dt
    is a constant.
    """

    name = "softmax_rnn"
    gates, recurrent_gates, states = ("a", "h"), ("a",), ("h",)
    products = {"value": ("h",)}
    parameters = {"rate": ("rate",)}
    scalars = ("temperature", "push")
    streams = {"elapsed": "TB"}
    options = {"dt": 0.5}
    kept = ("attention",)

    @staticmethod
    def step(x, r, s, p):
        attention = units.softmax((x.a + r.a) * softplus(p.temperature))
        faded = s.h * exp(-softplus(p.rate) * p.dt * x.elapsed)
        read = attention * faded
        value = tanh(x.h + p.value(read) + p.push * units.max(faded) - units.sum(read))
        return faded + sigmoid(4 * attention) * (value - faded), attention
