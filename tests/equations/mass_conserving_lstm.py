from seqcells.cells import Cell, Product, units
from seqcells.cells.activations import sigmoid


class MassConservingLSTM(Cell):
    """Mass-conserving LSTM (Hoedt et al. 2021, arXiv:2101.05186), redistribution the same in all steps: columns of the
    weight that sum to one. ``mass`` is distributed over the units; what leaves is the output, no state."""

    name = "mass_conserving_lstm"
    gates, recurrent_gates, states = ("i", "o"), (), ("c",)
    streams, output = {"mass": "TB"}, "h"
    products = {"redistribute": Product(("c",), bias=False), "recurrent": Product(("i", "o"), bias=False)}

    @staticmethod
    def weights(w):
        return {"redistribute": w.redistribute.softmax(-2)}

    @staticmethod
    def step(x, r, s, p):
        shares = p.recurrent(s.c)  # of c / sum of c: divided after the product, so that both are gathered at once
        total = units.sum(s.c) + 1e-5
        input = units.softmax(x.i + shares.i / total)
        output = sigmoid(x.o + shares.o / total)
        mass = p.redistribute(s.c) + input * x.mass
        return (1 - output) * mass, output * mass
