from seqcells.cells import Cell, Product
from seqcells.cells.activations import sigmoid, tanh


class MemoryBlockLSTM(Cell):
    """`OriginalLSTM` with memory cell blocks: the units of a block share one input gate and one output gate.

    A block is called head here: ``heads`` (4) are the blocks, of as many units each. The paper's squashing functions
    are 2 tanh(v / 2) and tanh(v / 2). torchrecurrent has no such cell.
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
