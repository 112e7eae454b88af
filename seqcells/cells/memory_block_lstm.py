from .activations import sigmoid, tanh
from .base import Cell
from .declared import Product


class MemoryBlockLSTM(Cell):
    """`OriginalLSTM` with memory cell blocks: the units of a block share one input gate and one output gate.

        c' = c + σ(I_i x + G_i h) 2 tanh((W x + C h) / 2)
        h' = σ(I_o x + G_o h) tanh(c' / 2)

    A block is called head here: ``heads`` (4) is the number of blocks, all of the same size. C is
    ``weight_cells_l{k}`` (H, H), I ``weight_gates_x_l{k}`` (2 heads, input_size), G ``weight_gates_h_l{k}`` (2 heads,
    H). 2 tanh(v / 2) and tanh(v / 2) are the paper's squashing functions (Hochreiter & Schmidhuber 1997,
    doi:10.1162/neco.1997.9.8.1735). torchrecurrent has no such cell.
    """

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
