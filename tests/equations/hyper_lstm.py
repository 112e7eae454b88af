from seqcells.cells import Cell, Product
from seqcells.cells.activations import sigmoid, tanh

GATES = ("i", "f", "g", "o")


class HyperLSTM(Cell):
    """HyperLSTM (Ha et al. 2017, arXiv:1609.09106), without its layer norm. A small LSTM of size S scales the rows of a
    large LSTM's weights, through embeddings of size K."""

    name = "hyper_lstm"
    gates, states = GATES, {"h": "H", "c": "H", "small": "S", "small_c": "S"}
    sizes = {"S": "hyper_size", "K": "embedding_size"}
    streams = {"input": "TBF"}
    products = {"small_x": Product(GATES, "SF"), "small_h": Product(GATES, "SH", bias=False)}
    products |= {"small_s": Product(GATES, "SS", bias=False), "embed_b": Product(GATES, "KS", bias=False)}
    products |= {f"embed_{part}": Product(GATES, "KS") for part in "xh"}
    products |= {f"{part}_{gate}": Product((gate,), "HK", bias=part == "b") for part in "xhb" for gate in GATES}

    @staticmethod
    def step(x, r, s, p):
        of_x, of_h, of_s = p.small_x(x.input), p.small_h(s.h), p.small_s(s.small)
        i, f, g, o = (a + b + c for a, b, c in zip(of_x, of_h, of_s, strict=True))
        small, small_c = lstm(i, f, g, o, s.small_c)
        dx, dh, db = p.embed_x(small), p.embed_h(small), p.embed_b(small)
        scaled = [
            getattr(p, f"x_{gate}")(getattr(dx, gate)) * getattr(x, gate)
            + getattr(p, f"h_{gate}")(getattr(dh, gate)) * getattr(r, gate)
            + getattr(p, f"b_{gate}")(getattr(db, gate))
            for gate in GATES
        ]
        return *lstm(*scaled, s.c), small, small_c


def lstm(i, f, g, o, c):
    cell = sigmoid(f) * c + sigmoid(i) * tanh(g)
    return sigmoid(o) * tanh(cell), cell
