from .activations import exp, log_sigmoid, maximum, sigmoid, tanh, where
from .base import Cell

NOTHING = -1e30
"""The logarithm of no weight at all."""


class SLSTM(Cell):
    """xLSTM's scalar LSTM (Beck et al. 2024, arXiv:2405.04517): exponential input gate, normaliser n, stabiliser m.

    One head: weight_hh is a full matrix. A normaliser of zero means that there was no input yet, whatever m is. So
    zero states begin as in the paper's code.
    """

    name = "slstm"
    gates, states = ("i", "f", "z", "o"), ("h", "c", "n", "m")
    projection = True

    @staticmethod
    def step(x, r, s, p):
        log_input = x.i + r.i
        log_forget = log_sigmoid(x.f + r.f)
        carried = where(s.n > 0, log_forget + s.m, NOTHING)
        stabiliser = maximum(carried, log_input)
        input = exp(log_input - stabiliser)
        forget = exp(carried - stabiliser)
        candidate = tanh(x.z + r.z)
        output = sigmoid(x.o + r.o)
        cell = forget * s.c + input * candidate
        normaliser = forget * s.n + input
        return output * cell / normaliser, cell, normaliser, stabiliser
