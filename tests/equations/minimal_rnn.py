from seqcells.cells import Cell, Product
from seqcells.cells.activations import sigmoid, tanh


class MinimalRNN(Cell):
    """MinimalRNN (Chen 2017, arXiv:1711.06788): the gate sees products of the state and of the latent input z."""

    name = "minimal_rnn"
    gates, recurrent_gates, states = ("z",), ("u",), ("h",)
    products = {"latent": Product(("u",), bias=False)}

    @staticmethod
    def step(x, r, s, p):
        z = tanh(x.z)
        return z + sigmoid(r.u + p.latent(z)) * (s.h - z)
