"""A recurrent node of an ONNX graph as a module that holds layers of seqcells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import onnx
import torch
from torch import Tensor, nn

from ... import cells
from ...cells import Cell
from ...modules.define import layer_of
from ...modules.recurrent_layer import RecurrentLayer
from ...request import checks
from .cells import FUNCTIONS, PLACES, OnnxGRU, OnnxGRUBefore, OnnxLSTM, OnnxPeepholeLSTM, OnnxRNN

if TYPE_CHECKING:
    from ...modules.static_types import Modules

ORDERS: dict[str, tuple[int, ...]] = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}
"""For each of our gates in order, the place of the gate in ONNX' order (i o f c, z r h)."""
LETTERS = {"LSTM": "fgh", "GRU": "fg", "RNN": "f"}
DEFAULTS: dict[str, tuple[str, ...]] = {
    "LSTM": ("Sigmoid", "Tanh", "Tanh"),
    "GRU": ("Sigmoid", "Tanh"),
    "RNN": ("Tanh",),
}
DIRECTIONS = {"forward": 1, "reverse": 1, "bidirectional": 2}
WEIGHTS = {"W": 1, "R": 2, "B": 3, "P": 7}
"""The places of a node's weights among its inputs."""
ATTRIBUTES = {
    *("activation_alpha", "activation_beta", "activations", "clip", "direction", "hidden_size", "layout"),
    "output_sequence",  # in the operators' first versions: whether there is an output Y
}
OWN_ATTRIBUTES: dict[str, set[str]] = {"LSTM": {"input_forget"}, "GRU": {"linear_before_reset"}, "RNN": set()}


class Node(nn.Module):
    """An LSTM, GRU or RNN of ONNX as a module with the node's arguments and results.

    Sizes are T time steps, N sequences, F features, H hidden units, D directions and G gates.

    Args:
        kind: the operator's name.
        attributes: the node's attributes by name; absent attributes have ONNX' defaults.
        tensors: W (D, G·H, F) and R (D, G·H, H), optionally B (D, 2·G·H) and P (D, 3·H).
        backend: see `seqcells.call.choose`. Default: ``"auto"``

    `layers` has one layer, of two directions if both have the same equations, otherwise a layer for each direction.
    With the default attributes the layers are `seqcells.LSTM`, `GRU` and `RNN`, or a layer of a cell in
    `seqcells.cells`.

    Raises:
        ValueError: attributes or tensors do not match the operator's specification.
    """

    kind: str
    direction: str
    layout: int
    attributes: dict[str, Any]
    layers: Modules[RecurrentLayer]

    def __init__(self, kind: str, attributes: Mapping[str, Any], tensors: Mapping[str, Tensor], backend: str = "auto"):
        super().__init__()
        if kind not in ORDERS:
            raise ValueError(f"expected an LSTM, GRU or RNN, got {kind}")
        direction, layout = attributes.get("direction", "forward"), attributes.get("layout", 0)
        if direction not in DIRECTIONS:
            raise ValueError(f"direction should be forward, reverse or bidirectional, got {direction!r}")
        if layout not in (0, 1):
            raise ValueError(f"layout should be 0 or 1, got {layout!r}")
        for name in attributes.keys() - ATTRIBUTES - OWN_ATTRIBUTES[kind]:
            raise ValueError(f"{kind} has no attribute {name}")
        self.kind, self.direction, self.layout, self.attributes = kind, direction, layout, dict(attributes)
        self._peepholes, count = "P" in tensors, DIRECTIONS[direction]
        whole = self._cells()
        _check(kind, attributes.get("hidden_size"), tensors, count)
        self.layers = cast("Modules[RecurrentLayer]", nn.ModuleList())
        for k, cell in enumerate(whole):
            own = {name: value[k : k + count // len(whole)] for name, value in tensors.items()}
            self.layers.append(_layer(kind, cell, own, backend))

    def _cells(self) -> list[type[Cell]]:
        """The cells of the layers: one for both directions if they have the same equations."""
        count = DIRECTIONS[self.direction]
        found = [_cell(self.kind, self.attributes, self._peepholes, k, count) for k in range(count)]
        return [found[0]] if len({*found}) == 1 else found

    def __getstate__(self) -> dict[str, Any]:
        """The state for pickle, with the layers' states in place of the layers.

        The layers' classes are made at run time, so pickle could not find them.
        """
        modules = {**self._modules, "layers": [layer.__getstate__() for layer in self.layers]}
        return {**self.__dict__, "_modules": modules}

    def __setstate__(self, state: dict[str, Any]) -> None:
        layers = state["_modules"]["layers"]
        super().__setstate__({**state, "_modules": {}})
        self.layers = cast("Modules[RecurrentLayer]", nn.ModuleList())
        for cell, own in zip(self._cells(), layers, strict=True):
            made = layer_of(cell)
            kind: Any = made.func if isinstance(made, partial) else made
            layer = _blank(kind)
            layer.__setstate__(own)
            self.layers.append(layer)

    def forward(
        self,
        input: Tensor,
        sequence_lens: Tensor | None = None,
        initial_h: Tensor | None = None,
        initial_c: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """The node's results.

        Args:
            input: X (T, N, F), or (N, T, F) with layout 1.
            sequence_lens: (N,) integers. Default: T for each sequence
            initial_h, initial_c: (D, N, H), or (N, D, H) with layout 1. Default: zeros

        Returns:
            Y (T, D, N, H) and Y_h (D, N, H), for an LSTM also Y_c (D, N, H). With layout 1 the shapes are (N, T, D, H)
            and (N, D, H).

        Raises:
            TypeError, ValueError, RuntimeError: the node does not take an argument, or as `RecurrentLayer.forward`.
        """
        if initial_c is not None and self.kind != "LSTM":
            raise TypeError(f"{self.kind} has no initial_c")
        if input.dim() != 3:
            raise ValueError(f"{self.kind}: expected an input of 3 axes, got {input.dim()}")
        given = [initial_h, initial_c] if self.kind == "LSTM" else [initial_h]
        if self.layout:
            input = input.transpose(0, 1)
            given = [None if state is None else state.transpose(0, 1) for state in given]
        paths, hidden = DIRECTIONS[self.direction], self.layers[0].hidden_size
        if sequence_lens is not None:
            sequence_lens = checks.lengths(sequence_lens, input.shape[0], input.shape[1], input.device)
        zeros = input.new_zeros(paths, input.shape[1], hidden)
        states = [zeros if state is None else state for state in given]
        each, outputs, finals = paths // len(self.layers), [], []
        for k, layer in enumerate(self.layers):
            backwards = self.direction == "reverse" or k == 1
            own = [state[k * each : (k + 1) * each] for state in states]
            hx = own[0] if len(own) == 1 else tuple(own)
            x = _reversed(input, sequence_lens) if backwards else input
            output, final = layer(x, hx, lengths=sequence_lens)
            output = output.unflatten(-1, (each, hidden)).transpose(1, 2)
            outputs.append(_reversed(output, sequence_lens, 2) if backwards else output)
            finals.append((final,) if isinstance(final, Tensor) else final)
        found = [torch.cat(outputs, 1), *(torch.cat(state, 0) for state in zip(*finals, strict=True))]
        if self.layout:
            return found[0].permute(2, 0, 1, 3), *(state.transpose(0, 1) for state in found[1:])
        return tuple(found)

    def extra_repr(self) -> str:
        """The properties of the node that the layers' own representations lack."""
        return f"{self.kind}, direction={self.direction}, layout={self.layout}"


def _blank(kind: Any) -> Any:
    return kind.__new__(kind)


def of_node(node: onnx.NodeProto, values: Mapping[str, Tensor], backend: str = "auto") -> Node:
    """The module of a node.

    Args:
        values: the constants, at least the node's weights, by their names in the graph.
        backend: see `seqcells.call.choose`. Default: ``"auto"``

    Raises:
        ValueError: ``values`` lacks a weight; or as `Node`.
    """
    names: dict[str, str] = dict(
        zip(("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P"), node.input, strict=False)
    )
    tensors = {}
    for role in WEIGHTS:
        name = names.get(role)
        if name:
            if name not in values:
                raise ValueError(f"{node.op_type} {node.name or node.output[0]}: {role} ({name}) is no constant")
            tensors[role] = values[name]
    attributes = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
    return Node(node.op_type, {name: _text(value) for name, value in attributes.items()}, tensors, backend)


def _text(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode()
    return [_text(each) for each in value] if isinstance(value, (list, tuple)) else value


def _cell(kind: str, attributes: Mapping[str, Any], peepholes: bool, k: int, count: int) -> type[Cell]:
    """The cell of one direction."""
    letters = LETTERS[kind]
    names = attributes.get("activations") or DEFAULTS[kind] * count
    if len(names) != len(letters) * count:
        raise ValueError(f"{kind} should have {len(letters) * count} activations, got {len(names)}")
    # Alpha and beta are listed in the order of the activations, only for functions that have such a number.
    numbers = {name: list(attributes.get(f"activation_{name}") or []) for name in ("alpha", "beta")}
    options: dict[str, Any] = {"clip": float(attributes.get("clip", 0.0))}
    if options["clip"] < 0:
        raise ValueError(f"clip should be above 0, got {options['clip']}")
    for place, name in enumerate(names):
        known = next((each for each in FUNCTIONS if each.lower() == name.lower()), None)
        if known is None:
            raise ValueError(f"there is no activation {name}")
        function = FUNCTIONS[known]
        own = {}
        for number, default in (("alpha", function.alpha), ("beta", function.beta)):
            own[number] = numbers[number].pop(0) if number in HAS.get(known, ()) and numbers[number] else default
        if place // len(letters) == k:
            letter = letters[place % len(letters)]
            options |= {
                f"{letter}_function": PLACES[known],
                f"{letter}_alpha": own["alpha"],
                f"{letter}_beta": own["beta"],
            }
    before = kind == "GRU" and not attributes.get("linear_before_reset", 0)
    if kind == "LSTM":
        options["input_forget"] = bool(attributes.get("input_forget", 0))
    ours = {"RNN": OnnxRNN, "GRU": OnnxGRUBefore if before else OnnxGRU}.get(kind)
    made = (ours or (OnnxPeepholeLSTM if peepholes else OnnxLSTM)).configured(**options)
    return KNOWN.get(made, made)


HAS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("Affine", "ScaledTanh", "HardSigmoid"), ("alpha", "beta")),
    **dict.fromkeys(("LeakyRelu", "ThresholdedRelu", "Elu"), ("alpha",)),
}
"""The names of the numbers of the functions that have any."""
KNOWN: dict[type[Cell], type[Cell]] = {
    OnnxRNN: cells.RNNTanh,
    OnnxRNN.configured(f_function=PLACES["Relu"]): cells.RNNReLU,
    OnnxGRU: cells.GRU,
    OnnxGRUBefore: cells.GRUResetBefore,
    OnnxLSTM: cells.LSTM,
    OnnxPeepholeLSTM: cells.PeepholeLSTM,
}
"""Cells of `seqcells.cells` with the same equations."""


def _check(kind: str, hidden: int | None, tensors: Mapping[str, Tensor], count: int) -> None:
    """Raise a ValueError if tensors do not match the operator or each other."""
    missing = [name for name in ("W", "R") if name not in tensors]
    if missing:
        raise ValueError(f"{kind} should have {missing[0]}, got {', '.join(tensors) or 'no tensors'}")
    for name, tensor in tensors.items():
        if name not in WEIGHTS:
            raise ValueError(f"{kind} has no {name}")
        if not tensor.is_floating_point() or tensor.dtype != tensors["W"].dtype:
            raise ValueError(f"{kind}: {name} should be of W's floating-point dtype, got {tensor.dtype}")
        if tensor.dim() != (3 if name in ("W", "R") else 2):
            raise ValueError(f"{kind}: {name} should not have {tensor.dim()} axes")
    if "P" in tensors and kind != "LSTM":
        raise ValueError(f"{kind} has no peepholes")
    hidden, gates = tensors["R"].shape[-1] if hidden is None else hidden, len(ORDERS[kind])
    sizes = {"W": (count, gates * hidden, tensors["W"].shape[-1]), "R": (count, gates * hidden, hidden)}
    sizes |= {"B": (count, 2 * gates * hidden), "P": (count, 3 * hidden)}
    for name, tensor in tensors.items():
        if tensor.shape != sizes[name]:
            raise ValueError(f"{kind}: {name} should be of size {sizes[name]}, got {tuple(tensor.shape)}")


def _layer(kind: str, cell: type[Cell], tensors: Mapping[str, Tensor], backend: str) -> RecurrentLayer:
    """A layer of seqcells with copies of the weights of one direction, or of both."""
    w, r, b, p = tensors["W"], tensors["R"], tensors.get("B"), tensors.get("P")
    options = {"bias": b is not None, "bidirectional": len(w) == 2, "device": w.device, "dtype": w.dtype}
    made = layer_of(cell)(w.shape[-1], r.shape[-1], backend=backend, **options)
    with torch.no_grad():
        for k, own in enumerate(made._weights()):
            recurrent = _ordered(kind, r[k])
            biases = [] if b is None else [_ordered(kind, each) for each in b[k].chunk(2)]
            others = []
            if cell.base in (cells.GRUResetBefore, OnnxGRUBefore):
                rows = 2 * r.shape[-1]
                others = [recurrent[rows:], *(each[rows:] for each in biases[1:])]
                recurrent, biases[1:] = recurrent[:rows], [each[:rows] for each in biases[1:]]
            elif p is not None:
                input, output, forget = p[k].chunk(3)
                others = [torch.cat([input, forget, output])]
            values = _ordered(kind, w[k]), recurrent, *biases, *others
            for parameter, value in zip(own.present(), values, strict=True):
                parameter.copy_(value.view_as(parameter))
    return made


def _ordered(kind: str, rows: Tensor) -> Tensor:
    parts: Sequence[Tensor] = rows.chunk(len(ORDERS[kind]))
    return torch.cat([parts[k] for k in ORDERS[kind]])


def _reversed(x: Tensor, lengths: Tensor | None, batch: int = 1) -> Tensor:
    """The value (T, …) with each sequence reversed up to its length; ``batch`` is the axis of the sequences.

    Time steps beyond a sequence's length stay in place.
    """
    if lengths is None:
        return x.flip(0)
    steps = torch.arange(len(x), device=x.device).unsqueeze(1)
    lengths = lengths.to(x.device)
    place = torch.where(steps < lengths, lengths - 1 - steps, steps)
    shape = [1] * x.dim()
    shape[0], shape[batch] = place.shape
    return x.gather(0, place.view(shape).expand_as(x))
