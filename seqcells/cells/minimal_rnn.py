from .activations import sigmoid, tanh
from .base import Cell
from .declared import Product


class MinimalRNN(Cell):
    """MinimalRNN (Chen 2017, arXiv:1711.06788): the state is a mean of latent inputs.

        z = tanh(W x),  u = σ(U h + V z)
        h' = u h + (1 - u) z

    V is ``weight_latent_l{k}`` (H, H), without a bias. torchrecurrent has the same equations and weights.
    """

    name = "minimal_rnn"
    gates, recurrent_gates, states = ("z",), ("u",), ("h",)
    products = {"latent": Product(("u",), bias=False)}

    @staticmethod
    def step(x, r, s, p):
        z = tanh(x.z)
        return z + sigmoid(r.u + p.latent(z)) * (s.h - z)
