"""The equations of Keras' recurrent cells, with any activations and with a mask of the hidden state for each gate.

Keras 3's own code is the source (keras/src/layers/rnn). Gates here are in torch.nn's order. With the default
activations and without dropout of the hidden state, these cells equal cells of `seqcells.cells` with other names.
"""

from ...cells import Cell, Product
from ...cells.activations import sigmoid, tanh


class KerasRNN(Cell):
    """Keras' SimpleRNN: h' = f(W x + b + U h), f is ``activation`` (tanh), or the identity with ``linear`` (False)."""

    name = "keras_rnn"
    gates, states = ("h",), ("h",)
    options = {"activation": tanh, "linear": False}

    @staticmethod
    def step(x, r, s, p):
        return x.h + r.h if p.linear else p.activation(x.h + r.h)


class KerasLSTM(Cell):
    """Keras' LSTM. Gates use ``recurrent_activation`` (sigmoid), candidate and output ``activation`` (tanh)."""

    name = "keras_lstm"
    gates, states = ("i", "f", "g", "o"), ("h", "c")
    options = {"activation": tanh, "recurrent_activation": sigmoid}

    @staticmethod
    def step(x, r, s, p):
        return lstm(x.i + r.i, x.f + r.f, x.g + r.g, x.o + r.o, s, p)


class KerasDropoutLSTM(Cell):
    """`KerasLSTM` whose hidden state is multiplied by a mask for each gate, a stream (N, H)."""

    name = "keras_dropout_lstm"
    gates, recurrent_gates, states = ("i", "f", "g", "o"), (), ("h", "c")
    products = {name: Product((name,), bias=False) for name in ("ui", "uf", "ug", "uo")}
    streams = dict.fromkeys(("mask_i", "mask_f", "mask_g", "mask_o"), "BH")
    options = {"activation": tanh, "recurrent_activation": sigmoid}

    @staticmethod
    def step(x, r, s, p):
        i, f = x.i + p.ui(x.mask_i * s.h), x.f + p.uf(x.mask_f * s.h)
        g, o = x.g + p.ug(x.mask_g * s.h), x.o + p.uo(x.mask_o * s.h)
        return lstm(i, f, g, o, s, p)


def lstm(i, f, g, o, s, p):
    """The new states of an LSTM from the pre-activations of its gates."""
    input, forget, output = p.recurrent_activation(i), p.recurrent_activation(f), p.recurrent_activation(o)
    cell = forget * s.c + input * p.activation(g)
    return output * p.activation(cell), cell


class KerasGRU(Cell):
    """Keras' GRU with ``reset_after``; its activations are those of `KerasLSTM`."""

    name = "keras_gru"
    gates, states = ("r", "z", "n"), ("h",)
    options = {"activation": tanh, "recurrent_activation": sigmoid}

    @staticmethod
    def step(x, r, s, p):
        reset, update = p.recurrent_activation(x.r + r.r), p.recurrent_activation(x.z + r.z)
        new = p.activation(x.n + reset * r.n)
        return update * s.h + (1 - update) * new


class KerasGRUBefore(Cell):
    """Keras' GRU without ``reset_after``: the reset gate is applied before the candidate's product."""

    name = "keras_gru_before"
    gates, recurrent_gates, states = ("r", "z", "n"), ("r", "z"), ("h",)
    products = {"candidate": Product(("n",), bias=False)}
    options = {"activation": tanh, "recurrent_activation": sigmoid}

    @staticmethod
    def step(x, r, s, p):
        reset, update = p.recurrent_activation(x.r + r.r), p.recurrent_activation(x.z + r.z)
        new = p.activation(x.n + p.candidate(reset * s.h))
        return update * s.h + (1 - update) * new


class KerasDropoutGRU(Cell):
    """`KerasGRU` whose hidden state is multiplied by a mask for each gate, a stream (N, H).

    With ``before`` (False) the cell is `KerasGRUBefore` with such masks.
    """

    name = "keras_dropout_gru"
    gates, recurrent_gates, states = ("r", "z", "n"), (), ("h",)
    products = {"ur": Product(("r",), bias=False), "uz": Product(("z",), bias=False), "un": Product(("n",))}
    streams = dict.fromkeys(("mask_r", "mask_z", "mask_n"), "BH")
    options = {"activation": tanh, "recurrent_activation": sigmoid, "before": False}

    @staticmethod
    def step(x, r, s, p):
        reset = p.recurrent_activation(x.r + p.ur(x.mask_r * s.h))
        update = p.recurrent_activation(x.z + p.uz(x.mask_z * s.h))
        product = p.un(reset * (x.mask_n * s.h)) if p.before else reset * p.un(x.mask_n * s.h)
        return update * s.h + (1 - update) * p.activation(x.n + product)
