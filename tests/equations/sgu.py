from seqcells.cells import Cell, Product
from seqcells.cells.activations import hard_sigmoid, sigmoid, softplus, tanh


class SGU(Cell):
    """Simple gated unit (Gao & Glowacka 2016, arXiv:1604.02910): the gate is of the product of input and past."""

    name = "sgu"
    gates, recurrent_gates, states = ("g", "z"), ("z",), ("h",)
    products = {"gate": ("g",)}

    @staticmethod
    def step(x, r, s, p):
        new = softplus(tanh(p.gate(x.g * s.h)) * s.h)
        return s.h + hard_sigmoid(x.z + r.z) * (new - s.h)


class DSGU(SGU):
    """Deep simple gated unit: a further product before the output's activation."""

    name = "dsgu"
    products = SGU.products | {"out": Product(("h",), bias=False)}

    @staticmethod
    def step(x, r, s, p):
        new = sigmoid(p.out(tanh(p.gate(x.g * s.h)) * s.h))
        return s.h + hard_sigmoid(x.z + r.z) * (new - s.h)
