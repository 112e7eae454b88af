from seqcells.cells import Cell, Product
from seqcells.cells.activations import sigmoid, tanh


class OriginalLSTM(Cell):
    """LSTM without forget gate (Hochreiter & Schmidhuber 1997, doi:10.1162/neco.1997.9.8.1735) and its squashings:
    g = 4 sigmoid - 2, h = 2 sigmoid - 1."""

    name = "original_lstm"
    gates, states = ("i", "g", "o"), ("h", "c")

    @staticmethod
    def step(x, r, s, p):
        cell = s.c + sigmoid(x.i + r.i) * (4 * sigmoid(x.g + r.g) - 2)
        return sigmoid(x.o + r.o) * (2 * sigmoid(cell) - 1), cell


class MemoryBlockLSTM(Cell):
    """The same with memory cell blocks: the units of a block (here: head) share one input gate and one output gate."""

    name = "memory_block_lstm"
    gates, recurrent_gates, states = ("g",), (), ("h", "c")
    options, streams = {"heads": 4}, {"input": "TBF"}
    products = {"cells": Product(("g",), heads=1), "gates_x": Product(("i", "o"), "NF")}
    products |= {"gates_h": Product(("i", "o"), "NH", bias=False)}

    @staticmethod
    def step(x, r, s, p):
        of_x, of_h = p.gates_x(x.input), p.gates_h(s.h)
        cell = s.c + sigmoid(of_x.i + of_h.i) * 2 * tanh((x.g + p.cells(s.h)) / 2)
        return sigmoid(of_x.o + of_h.o) * tanh(cell / 2), cell
