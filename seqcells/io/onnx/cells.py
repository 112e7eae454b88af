"""The equations of ONNX's LSTM, GRU and RNN with any attributes (operators of version 22, onnx.ai/onnx/operators).

With the default attributes these cells equal cells of `seqcells.cells` with other names. Gates are in torch.nn's order.
The option ``f_function`` is the place of the function f in `FUNCTIONS`, ``f_alpha`` and ``f_beta`` are its numbers. A
``clip`` of 0 means no clipping.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ...cells import Cell, Product
from ...cells.activations import exp, maximum, relu, sigmoid, softplus, softsign, tanh, where


class Function(NamedTuple):
    """An activation of ONNX, with its default numbers."""

    formula: Callable[[Any, float, float], Any]
    """A function of the argument, alpha and beta."""
    alpha: float = 0.0
    beta: float = 0.0


FUNCTIONS = {
    "Sigmoid": Function(lambda x, a, b: sigmoid(x)),
    "Tanh": Function(lambda x, a, b: tanh(x)),
    "Relu": Function(lambda x, a, b: relu(x)),
    "Affine": Function(lambda x, a, b: a * x + b, 1.0, 0.0),
    "LeakyRelu": Function(lambda x, a, b: where(x < 0, a * x, x), 0.01),
    "ThresholdedRelu": Function(lambda x, a, b: where(x < a, 0.0, x), 1.0),
    "ScaledTanh": Function(lambda x, a, b: a * tanh(b * x), 1.0, 1.0),
    "HardSigmoid": Function(lambda x, a, b: -maximum(-maximum(a * x + b, 0.0), -1.0), 0.2, 0.5),
    "Elu": Function(lambda x, a, b: where(x < 0, a * (exp(-relu(-x)) - 1), x), 1.0),
    "Softsign": Function(lambda x, a, b: softsign(x)),
    "Softplus": Function(lambda x, a, b: softplus(x)),
}
"""The activations by ONNX' names."""
_BY_PLACE = [*FUNCTIONS.values()]
PLACES = {name: place for place, name in enumerate(FUNCTIONS)}


def _options(**functions: str) -> dict[str, Any]:
    found: dict[str, Any] = {"clip": 0.0}
    for letter, name in functions.items():
        function = FUNCTIONS[name]
        found |= {
            f"{letter}_function": PLACES[name],
            f"{letter}_alpha": function.alpha,
            f"{letter}_beta": function.beta,
        }
    return found


def _apply(p: Any, letter: str, x: Any) -> Any:
    """Apply the function of a letter (f, g or h) to a sum, which is clipped before."""
    if p.clip:
        x = maximum(-maximum(-x, -p.clip), -p.clip)
    place, alpha, beta = (getattr(p, f"{letter}{end}") for end in ("_function", "_alpha", "_beta"))
    return _BY_PLACE[place].formula(x, alpha, beta)


class OnnxRNN(Cell):
    """h' = f(W x + R h + b)."""

    name = "onnx_rnn"
    gates, states = ("h",), ("h",)
    options = _options(f="Tanh")

    @staticmethod
    def step(x, r, s, p):
        return _apply(p, "f", x.h + r.h)


class OnnxGRU(Cell):
    """GRU with ``linear_before_reset``: f is the function of r and z, g the function of the candidate."""

    name = "onnx_gru"
    gates, states = ("r", "z", "n"), ("h",)
    options = _options(f="Sigmoid", g="Tanh")

    @staticmethod
    def step(x, r, s, p):
        reset, update = _apply(p, "f", x.r + r.r), _apply(p, "f", x.z + r.z)
        new = _apply(p, "g", x.n + reset * r.n)
        return (1 - update) * new + update * s.h


class OnnxGRUBefore(Cell):
    """GRU without ``linear_before_reset``: the reset gate is applied before the candidate's product."""

    name = "onnx_gru_before"
    gates, recurrent_gates, states = ("r", "z", "n"), ("r", "z"), ("h",)
    products = {"candidate": Product(("n",))}
    options = _options(f="Sigmoid", g="Tanh")

    @staticmethod
    def step(x, r, s, p):
        reset, update = _apply(p, "f", x.r + r.r), _apply(p, "f", x.z + r.z)
        new = _apply(p, "g", x.n + p.candidate(reset * s.h))
        return (1 - update) * new + update * s.h


class OnnxLSTM(Cell):
    """LSTM: f is the function of the gates, g of the candidate, h of the new cell state.

    With ``input_forget`` the forget gate is 1 - i.
    """

    name = "onnx_lstm"
    gates, states = ("i", "f", "g", "o"), ("h", "c")
    options = _options(f="Sigmoid", g="Tanh", h="Tanh") | {"input_forget": False}

    @staticmethod
    def step(x, r, s, p):
        return _lstm(x, r, s, p, 0.0, 0.0, lambda cell: 0.0)


class OnnxPeepholeLSTM(Cell):
    """`OnnxLSTM` with peepholes: i and f read the old cell state, o reads the new cell state."""

    name = "onnx_peephole_lstm"
    gates, states = ("i", "f", "g", "o"), ("h", "c")
    parameters = {"peephole": ("i", "f", "o")}
    options = OnnxLSTM.options

    @staticmethod
    def step(x, r, s, p):
        return _lstm(x, r, s, p, p.i * s.c, p.f * s.c, lambda cell: p.o * cell)


def _lstm(x: Any, r: Any, s: Any, p: Any, seen_i: Any, seen_f: Any, seen_o: Callable[[Any], Any]) -> tuple[Any, Any]:
    input = _apply(p, "f", x.i + r.i + seen_i)
    forget = 1 - input if p.input_forget else _apply(p, "f", x.f + r.f + seen_f)
    cell = forget * s.c + input * _apply(p, "g", x.g + r.g)
    output = _apply(p, "f", x.o + r.o + seen_o(cell))
    return output * _apply(p, "h", cell), cell
