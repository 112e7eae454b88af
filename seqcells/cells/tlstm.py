from typing import Any

from .activations import sigmoid, tanh
from .tgru import TGRU


class TLSTM(TGRU):
    """Strongly-typed LSTM (Balduzzi & Ghifary 2016, arXiv:1602.02218), with the gates of `TGRU`.

        c' = f c + (1 - f) z
        h' = c' o

    The states are c and ``last``, the input before; the output h is no state. torchrecurrent has the same equations,
    with a second bias of each gate.
    """

    name, states, output = "tlstm", {"c": "H", "last": "F"}, "h"

    @staticmethod
    def step(x: Any, r: Any, s: Any, p: Any) -> Any:
        v = p.last(s.last)
        new = x.z + v.z
        cell = new + sigmoid(x.f + v.f) * (s.c - new)
        return cell, x.input, cell * tanh(x.o + v.o)
