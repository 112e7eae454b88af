from seqcells.cells import Cell, Product, units
from seqcells.cells.activations import sigmoid


class MassConservingLSTM(Cell):
    """Mass-conserving LSTM (Hoedt et al. 2021, arXiv:2101.05186) with the same redistribution in all steps. The columns
    of the redistribution weight sum to one. ``mass`` is distributed over the units. The output is the mass that leaves,
    and is no state."""

    name = "mass_conserving_lstm"
    gates, recurrent_gates, states = ("i", "o"), (), ("c",)
    streams, output = {"mass": "TB"}, "h"
    products = {"redistribute": Product(("c",), bias=False), "recurrent": Product(("i", "o"), bias=False)}

    @staticmethod
    def weights(w):
        return {"redistribute": w.redistribute.softmax(-2)}

    @staticmethod
    def step(x, r, s, p):
        # the product of c / sum of c: divided after the product, so that product and sum are gathered in one stage
        shares = p.recurrent(s.c)
        total = units.sum(s.c) + 1e-5
        input = units.softmax(x.i + shares.i / total)
        output = sigmoid(x.o + shares.o / total)
        mass = p.redistribute(s.c) + input * x.mass
        return (1 - output) * mass, output * mass
