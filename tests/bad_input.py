"""Bad input of many kinds, which `test_errors` passes to torch.nn and to seqcells."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

import seqcells

T, N, IN, H = 5, 2, 3, 4


class Maker:
    """Makes one kind of layer, its cell and their states: torch.nn's or, given a backend, ours."""

    def __init__(self, kind: str, backend: str | None = None) -> None:
        self.kind = kind
        self.library = nn if backend is None else seqcells
        self.chosen = {} if backend is None else {"backend": backend}

    def layer(self, *sizes: Any, **settings: Any) -> nn.Module:
        return getattr(self.library, self.kind)(*(sizes or (IN, H)), **settings, **self.chosen)

    def cell(self, *sizes: Any, **settings: Any) -> nn.Module:
        return getattr(self.library, f"{self.kind}Cell")(*(sizes or (IN, H)), **settings, **self.chosen)

    def hx(self, *size: int, **settings: Any) -> torch.Tensor | tuple[torch.Tensor, ...]:
        state = torch.zeros(size, **settings)
        return (state, state) if self.kind == "LSTM" else state


def x(*size: int, **settings: Any) -> torch.Tensor:
    return torch.zeros(size or (T, N, IN), **settings)


def packed(**settings: Any) -> PackedSequence:
    return pack_padded_sequence(x(**settings), torch.tensor([T, T - 2]))


Case = Callable[[Maker], Any]

CONSTRUCTOR: dict[str, Case] = {
    "dropout below 0": lambda m: m.layer(dropout=-0.1),
    "dropout above 1": lambda m: m.layer(dropout=1.5),
    "dropout not a number": lambda m: m.layer(dropout=float("nan")),
    "dropout bool": lambda m: m.layer(dropout=True),
    "dropout string": lambda m: m.layer(dropout="0.5"),
    "dropout word": lambda m: m.layer(dropout="half"),
    "dropout None": lambda m: m.layer(dropout=None),
    "dropout complex": lambda m: m.layer(dropout=0.5j),
    "bias int": lambda m: m.layer(bias=1),
    "bias None": lambda m: m.layer(bias=None),
    "batch_first int": lambda m: m.layer(batch_first=1),
    "batch_first string": lambda m: m.layer(batch_first="yes"),
    "input_size float": lambda m: m.layer(3.0, H),
    "input_size None": lambda m: m.layer(None, H),
    "input_size tensor": lambda m: m.layer(torch.tensor(3), H),
    "input_size zero": lambda m: m.layer(0, H),
    "input_size negative": lambda m: m.layer(-3, H),
    "hidden_size float": lambda m: m.layer(IN, 4.0),
    "hidden_size string": lambda m: m.layer(IN, "4"),
    "hidden_size zero": lambda m: m.layer(IN, 0),
    "hidden_size negative": lambda m: m.layer(IN, -4),
    "num_layers zero": lambda m: m.layer(IN, H, 0),
    "num_layers negative": lambda m: m.layer(IN, H, -1),
    "num_layers float": lambda m: m.layer(IN, H, 1.5),
    "num_layers string": lambda m: m.layer(IN, H, "2"),
    "num_layers None": lambda m: m.layer(IN, H, None),
    "proj_size negative": lambda m: m.layer(proj_size=-1),
    "proj_size of hidden_size": lambda m: m.layer(proj_size=H),
    "proj_size above hidden_size": lambda m: m.layer(proj_size=H + 1),
    "proj_size string": lambda m: m.layer(proj_size="2"),
    "nonlinearity unknown": lambda m: m.layer(nonlinearity="sigmoid"),
    "nonlinearity None": lambda m: m.layer(nonlinearity=None),
    "nonlinearity twice": lambda m: m.layer(IN, H, 1, "tanh", nonlinearity="tanh"),
    "a string in fourth place": lambda m: m.layer(IN, H, 1, "yes"),
    "no sizes": lambda m: m.layer(*[IN]),
    "too many arguments": lambda m: m.layer(IN, H, *[1] * 12),
    "unknown argument": lambda m: m.layer(units=4),
    "two things wrong": lambda m: m.layer(0, H, dropout=2, bias=1),
    "integer parameters": lambda m: m.layer(dtype=torch.int64),
    "dtype string": lambda m: m.layer(dtype="float32"),
    "device unknown": lambda m: m.layer(device="nowhere"),
    "device of the wrong type": lambda m: m.layer(device=1.5),
}

INPUT: dict[str, Case] = {
    "no input": lambda m: m.layer()(),
    "too many arguments": lambda m: m.layer()(x(), None, None),
    "unknown argument": lambda m: m.layer()(x(), mask=None),
    "input None": lambda m: m.layer()(None),
    "input list": lambda m: m.layer()([[[0.0] * IN]]),
    "input array": lambda m: m.layer()(np.zeros((T, N, IN), np.float32)),
    "input 0-D": lambda m: m.layer()(torch.tensor(0.0)),
    "input 1-D": lambda m: m.layer()(x(IN)),
    "input 4-D": lambda m: m.layer()(x(1, T, N, IN)),
    "features": lambda m: m.layer()(x(T, N, IN + 1)),
    "features unbatched": lambda m: m.layer()(x(T, IN - 1)),
    "features batch_first": lambda m: m.layer(batch_first=True)(x(N, T, H)),
    "input float64": lambda m: m.layer()(x(dtype=torch.float64)),
    "input float16": lambda m: m.layer()(x(dtype=torch.float16)),
    "input integer": lambda m: m.layer()(x(dtype=torch.int64)),
    "input complex": lambda m: m.layer()(x(dtype=torch.complex64)),
    "input float32, layer float64": lambda m: m.layer(dtype=torch.float64)(x()),
    "no steps": lambda m: m.layer()(x(0, N, IN)),
    "no steps batch_first": lambda m: m.layer(batch_first=True)(x(N, 0, IN)),
    "no steps unbatched": lambda m: m.layer()(x(0, IN)),
    "no features": lambda m: m.layer()(x(T, N, 0)),
}

STATE: dict[str, Case] = {
    "batched input, 2-D": lambda m: m.layer()(x(), m.hx(N, H)),
    "batched input, 4-D": lambda m: m.layer()(x(), m.hx(1, 1, N, H)),
    "unbatched input, 3-D": lambda m: m.layer()(x(T, IN), m.hx(1, 1, H)),
    "unbatched input, 1-D": lambda m: m.layer()(x(T, IN), m.hx(H)),
    "layers": lambda m: m.layer()(x(), m.hx(2, N, H)),
    "layers of two": lambda m: m.layer(num_layers=2)(x(), m.hx(1, N, H)),
    "directions": lambda m: m.layer(bidirectional=True)(x(), m.hx(1, N, H)),
    "batch": lambda m: m.layer()(x(), m.hx(1, N + 1, H)),
    "batch of one": lambda m: m.layer()(x(), m.hx(1, 1, H)),
    "batch first": lambda m: m.layer(batch_first=True)(x(N, T, IN), m.hx(N, 1, H)),
    "hidden": lambda m: m.layer()(x(), m.hx(1, N, H + 1)),
    "hidden unbatched": lambda m: m.layer()(x(T, IN), m.hx(1, H - 1)),
    "layers unbatched": lambda m: m.layer()(x(T, IN), m.hx(2, H)),
    "string": lambda m: m.layer()(x(), "zeros"),
    "number": lambda m: m.layer()(x(), 0.0),
    "False": lambda m: m.layer()(x(), False),
    "empty tuple": lambda m: m.layer()(x(), ()),
    "tuple of one": lambda m: m.layer()(x(), (x(1, N, H),)),
    "tuple of three": lambda m: m.layer()(x(), (x(1, N, H),) * 3),
    "tuple of None": lambda m: m.layer()(x(), (None, None)),
    "tuple of lists": lambda m: m.layer()(x(), ([0.0], [0.0])),
    "wrong input and state": lambda m: m.layer()(x(T, N, IN + 1), m.hx(2, N, H)),
    "wrong rank of both": lambda m: m.layer()(x(1, T, N, IN), m.hx(H)),
}

PACKED: dict[str, Case] = {
    "features": lambda m: m.layer()(pack_padded_sequence(x(T, N, H), torch.tensor([T, 1]))),
    "data 3-D": lambda m: m.layer()(PackedSequence(x(), torch.tensor([N] * T))),
    "data float64": lambda m: m.layer()(packed(dtype=torch.float64)),
    "state, hidden": lambda m: m.layer()(packed(), m.hx(1, N, H + 1)),
    "state, batch": lambda m: m.layer()(packed(), m.hx(1, N + 1, H)),
    "state, layers": lambda m: m.layer()(packed(), m.hx(2, N, H)),
    "state, 2-D": lambda m: m.layer()(packed(), m.hx(N, H)),
    "state, tuple of three": lambda m: m.layer()(packed(), (x(1, N, H),) * 3),
}

LSTM_ONLY: dict[str, Case] = {
    "a tensor": lambda m: m.layer()(x(), x(1, N, H)),
    "a tensor of two": lambda m: m.layer()(x(), x(2, N, H)),
    "a stacked tensor": lambda m: m.layer()(x(), x(2, 1, N, H)),
    "hidden of c": lambda m: m.layer()(x(), (x(1, N, H), x(1, N, H + 1))),
    "batch of c": lambda m: m.layer()(x(), (x(1, N, H), x(1, N + 1, H))),
    "rank of c": lambda m: m.layer()(x(), (x(1, N, H), x(N, H))),
    "no c": lambda m: m.layer()(x(), (x(1, N, H), None)),
    "h unprojected": lambda m: m.layer(proj_size=2)(x(), m.hx(1, N, H)),
    "c projected": lambda m: m.layer(proj_size=2)(x(), m.hx(1, N, 2)),
    "a tensor to the cell": lambda m: m.cell()(x(N, IN), x(N, H)),
    "a cell's hidden of c": lambda m: m.cell()(x(N, IN), (x(N, H), x(N, H + 1))),
    "a cell's rank of c": lambda m: m.cell()(x(N, IN), (x(N, H), x(1, N, H))),
}

CELL: dict[str, Case] = {
    "hidden_size negative": lambda m: m.cell(IN, -4),
    "hidden_size float": lambda m: m.cell(IN, 4.0),
    "input_size string": lambda m: m.cell("3", H),
    "no sizes": lambda m: m.cell(*[IN]),
    "unknown argument": lambda m: m.cell(num_layers=1),
    "integer parameters": lambda m: m.cell(dtype=torch.int64),
    "nonlinearity unknown": lambda m: m.cell(nonlinearity="sigmoid")(x(N, IN)),
    "input None": lambda m: m.cell()(None),
    "input 0-D": lambda m: m.cell()(torch.tensor(0.0)),
    "input 3-D": lambda m: m.cell()(x()),
    "features": lambda m: m.cell()(x(N, IN + 1)),
    "features unbatched": lambda m: m.cell()(x(IN + 1)),
    "state 3-D": lambda m: m.cell()(x(N, IN), m.hx(1, N, H)),
    "state 0-D": lambda m: m.cell()(x(N, IN), m.hx()),
    "state 1-D": lambda m: m.cell()(x(N, IN), m.hx(H)),
    "state 2-D unbatched": lambda m: m.cell()(x(IN), m.hx(N, H)),
    "state of another batch": lambda m: m.cell()(x(N, IN), m.hx(N + 1, H)),
    "state of another hidden size": lambda m: m.cell()(x(N, IN), m.hx(N, H + 1)),
    "tuple of one": lambda m: m.cell()(x(N, IN), (x(N, H),)),
    "tuple of three": lambda m: m.cell()(x(N, IN), (x(N, H),) * 3),
    "empty tuple": lambda m: m.cell()(x(N, IN), ()),
    "string": lambda m: m.cell()(x(N, IN), "zeros"),
    "tuple of None": lambda m: m.cell()(x(N, IN), (None, None)),
}

MIXED: dict[str, Case] = {
    "input on another device": lambda m: m.layer()(x(device="meta")),
    "layer on another device": lambda m: m.layer(device="meta")(x()),
    "state packed, float64": lambda m: m.layer()(packed(), m.hx(1, N, H, dtype=torch.float64)),
    "state packed, another device": lambda m: m.layer()(packed(), m.hx(1, N, H, device="meta")),
    "state float64": lambda m: m.layer()(x(), m.hx(1, N, H, dtype=torch.float64)),
    "state integer": lambda m: m.layer()(x(), m.hx(1, N, H, dtype=torch.int64)),
    "state another device": lambda m: m.layer()(x(), m.hx(1, N, H, device="meta")),
    "cell, input float64": lambda m: m.cell()(x(N, IN, dtype=torch.float64)),
    "cell, input integer": lambda m: m.cell()(x(N, IN, dtype=torch.int64)),
    "cell, state float64": lambda m: m.cell()(x(N, IN), m.hx(N, H, dtype=torch.float64)),
    "cell, state on another device": lambda m: m.cell()(x(N, IN), m.hx(N, H, device="meta")),
    "cell, input on another device": lambda m: m.cell()(x(N, IN, device="meta")),
}

LSTM_MIXED: dict[str, Case] = {
    "c float64": lambda m: m.layer()(x(), (x(1, N, H), x(1, N, H, dtype=torch.float64))),
    "c on another device": lambda m: m.layer()(x(), (x(1, N, H), x(1, N, H, device="meta"))),
}

# Calls that torch.nn accepts, although they may look wrong.
TAKEN: dict[str, Case] = {
    "dropout of numpy": lambda m: m.layer(num_layers=2, dropout=np.float64(0.0))(x()),
    "dropout as a whole number": lambda m: m.layer(num_layers=2, dropout=1)(x())[1],
    "no sequences": lambda m: m.layer()(x(T, 0, IN)),
    "states in a list": lambda m: m.layer()(x(), list(m.hx(1, N, H)) if m.kind == "LSTM" else m.hx(1, N, H)),
    "unbatched states stacked": lambda m: m.layer()(x(T, IN), x(2, 1, H) if m.kind == "LSTM" else x(1, H)),
    "cell, no sequences": lambda m: m.cell()(x(0, IN)),
    "cell, states in a list": lambda m: m.cell()(x(N, IN), list(m.hx(N, H)) if m.kind == "LSTM" else m.hx(N, H)),
    "cell, unbatched states stacked": lambda m: m.cell()(x(IN), x(2, H) if m.kind == "LSTM" else x(H)),
}
