from seqcells.cells import Cell, Product
from seqcells.cells.activations import exp, relu, sigmoid, tanh


class GRUD(Cell):
    """GRU-D (Che et al. 2018, arXiv:1606.01865): inputs that are missing (mask 0) decay to their mean with the time
    since they were last seen, so does the state to zero."""

    name = "gru_d"
    recurrent_gates, states = (), {"h": "H", "last": "F"}
    streams = {"input": "TBF", "mask": "TBF", "elapsed": "TBF"}
    parameters = {"decay": {"w": "F", "b": "F", "mean": "F"}}
    products = {"fade": Product(("h",), "HF"), "candidate": ("n",), "gates": ("r", "z")}
    products |= {"x": Product(("r", "z", "n"), "HF", bias=False), "m": Product(("r", "z", "n"), "HF", bias=False)}

    @staticmethod
    def step(x, r, s, p):
        last = s.last + x.mask * (x.input - s.last)
        guess = p.mean + exp(-relu(p.w * x.elapsed + p.b)) * (s.last - p.mean)
        of_x, of_m = p.x(guess + x.mask * (x.input - guess)), p.m(x.mask)
        h = s.h * exp(-relu(p.fade(x.elapsed)))
        of_h = p.gates(h)
        reset, update = sigmoid(of_x.r + of_h.r + of_m.r), sigmoid(of_x.z + of_h.z + of_m.z)
        new = tanh(of_x.n + of_m.n + p.candidate(reset * h))
        return h + update * (new - h), last
