"""Layers of seqcells as ONNX nodes: how torch.onnx.export translates the package's operator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from onnxscript import ir

from ...call.graph_cells import cell_of
from ...cells import Cell
from .cells import PLACES, OnnxGRU, OnnxGRUBefore, OnnxLSTM, OnnxPeepholeLSTM, OnnxRNN
from .nodes import HAS, KNOWN, LETTERS, ORDERS
from .opset import Value, op
from .scan import scan

KINDS: dict[type[Cell], str] = {
    OnnxRNN: "RNN",
    OnnxGRU: "GRU",
    OnnxGRUBefore: "GRU",
    OnnxLSTM: "LSTM",
    OnnxPeepholeLSTM: "LSTM",
}


class Native(NamedTuple):
    """The ONNX node for a cell: the operator's name and its attributes."""

    kind: str
    attributes: dict[str, Any]

    @classmethod
    def of(cls, cell: type[Cell], directions: int) -> Native | None:
        """The node for a cell, or None if ONNX has none."""
        same = next((theirs for theirs, ours in KNOWN.items() if ours is cell), cell)
        kind = KINDS.get(same.base)
        if kind is None:
            return None
        options = same.options
        found: dict[str, Any] = {}
        if kind == "GRU":
            found["linear_before_reset"] = int(same.base is OnnxGRU)
        if options.get("input_forget"):
            found["input_forget"] = 1
        if options["clip"]:
            found["clip"] = options["clip"]
        if any(options[name] != same.base.options[name] for name in options if name[1:2] == "_"):
            found |= _activations(options, LETTERS[kind], directions)
        return cls(kind, found)


def _activations(options: Mapping[str, Any], letters: str, directions: int) -> dict[str, Any]:
    names = {place: name for name, place in PLACES.items()}
    functions = [names[options[f"{letter}_function"]] for letter in letters] * directions
    found: dict[str, Any] = {"activations": functions}
    for number in ("alpha", "beta"):
        pairs = zip(functions, [*letters] * directions, strict=True)
        values = [options[f"{letter}_{number}"] for name, letter in pairs if number in HAS.get(name, ())]
        if values:
            found[f"activation_{number}"] = values
    return found


def nonzero_static(mask, size, fill_value=-1):  # no annotations, which the exporter would take for ONNX' types
    """The indices (size, axes) of a mask's true elements, whose number is ``size``."""
    return op.Transpose(op.NonZero(mask), perm=[1, 0])


def recurrence(cell, program, tensors, names, reverse, backend, kept=""):  # no annotations, as above
    """The operator's results from its arguments: the output, the final states and the kept values."""
    given = dict(zip(names.split(), tensors, strict=True))
    like = given["gates_x"]
    if like.dtype != ir.DataType.BFLOAT16:
        return _results(cell, program, given, reverse, kept)
    # ONNX runtimes lack recurrent nodes in bfloat16, and most operators of a Scan's body. So the graph is in float32.
    wide = {name: _wide(value) if value.dtype == like.dtype else value for name, value in given.items()}
    return [op.Cast(value, to=like.dtype) for value in _results(cell, program, wide, reverse, kept)]


def _results(cell: str, program: str, given: Mapping[str, Value], reverse: bool, kept: str) -> Sequence[Value]:
    kind = cell_of(cell, program)
    directions = given[f"state_{kind.states[0]}"].shape[0]
    native = Native.of(kind, directions)
    if native is None or kept or {"reset", "weight_hr_0"} & given.keys():
        return scan(kind, given, directions, reverse, tuple(kept.split()))
    gates, hidden = len(kind.gates), given["weight_hh_0"].shape[1]
    x, w, b = _projection(given["gates_x"], directions * gates * hidden)
    order = [ORDERS[native.kind].index(k) for k in range(gates)]

    def ordered(rows: Value, *size: int) -> Value:
        """Rows (D·G·H, …) → (D, G·H, …) in ONNX' order of gates."""
        blocks = op.Gather(op.Reshape(rows, _integers(directions, gates, hidden, *size)), _integers(*order), axis=1)
        return op.Reshape(blocks, _integers(directions, gates * hidden, *size))

    recurrent = [_rows(given, "weight", d) for d in range(directions)]
    biases = [_rows(given, "bias", d) for d in range(directions)]
    bias = None
    if b is not None or biases[0] is not None:
        zeros = op.Constant(value=ir.tensor(np.zeros(directions * gates * hidden, _numpy(x))))
        both = b if b is not None else zeros, zeros if biases[0] is None else op.Concat(*biases, axis=0)
        bias = op.Concat(*(ordered(each) for each in both), axis=1)
    inputs = [x, ordered(w, -1), ordered(op.Concat(*recurrent, axis=0), hidden), bias]
    inputs.append(op.Cast(given["lengths"], to=ir.DataType.INT32) if "lengths" in given else None)
    inputs += [given[f"state_{name}"] for name in kind.states]
    if kind.own_names() and native.kind == "LSTM":
        each = [op.Reshape(given[f"weight_peephole_{d}"], _integers(1, 3, hidden)) for d in range(directions)]
        rows = op.Gather(op.Concat(*each, axis=0), _integers(0, 2, 1), axis=1)
        inputs.append(op.Reshape(rows, _integers(directions, 3 * hidden)))
    direction = "bidirectional" if directions == 2 else "reverse" if reverse else "forward"
    node = getattr(op, native.kind)
    output, *finals = node(*inputs, hidden_size=hidden, direction=direction, **native.attributes)
    if "lengths" in given:
        # ONNX does not specify the final states of an empty sequence, and runtimes return zeros. The layer's own final
        # states are the initial states then.
        empty = op.Unsqueeze(
            op.Equal(given["lengths"], op.CastLike(op.Constant(value_int=0), given["lengths"])), [0, 2]
        )
        states = [given[f"state_{name}"] for name in kind.states]
        finals = [op.Where(empty, state, final) for state, final in zip(states, finals, strict=True)]
    output = op.Reshape(op.Transpose(output, perm=[0, 2, 1, 3]), _integers(0, 0, directions * hidden))
    return output, *finals


def _rows(given: Mapping[str, Value], what: str, d: int) -> Value | None:
    """The recurrent weights or biases of a direction, with the rows of the candidate's product last."""
    first = given.get(f"{'weight_hh' if what == 'weight' else 'bias_hh'}_{d}")
    candidate = given.get(f"{what}_candidate_{d}")
    return first if candidate is None else op.Concat(first, candidate, axis=0)


def _projection(gates_x: Value, width: int) -> tuple[Value, Value, Value | None]:
    """The layer's input, its weights (D·G·H, features) and its biases, found from the product that made ``gates_x``.

    If there is no such product, the results are ``gates_x`` itself, a unit matrix and None.
    """
    bias, producer = None, gates_x.producer()
    if producer is not None and producer.op_type == "Add" and len(producer.inputs[1].shape or ()) == 1:
        product, bias = producer.inputs
        producer = product.producer()
    if producer is not None and producer.op_type == "MatMul" and _fits(producer.inputs[1], bias, width):
        x, weight = producer.inputs
        return x, op.Transpose(weight, perm=[1, 0]), bias
    return gates_x, op.Constant(value=ir.tensor(np.eye(width, dtype=_numpy(gates_x)))), None


def _wide(value: Value) -> Value:
    """The value in float32."""
    made = op.Cast(value, to=ir.DataType.FLOAT)
    made.shape, made.dtype = value.shape, ir.DataType.FLOAT  # the exporter has not inferred these for the Cast yet
    return made


def _fits(weight: Value, bias: Value | None, width: int) -> bool:
    """Whether ``weight`` may be a matrix with ``width`` columns, and ``bias`` have ``width`` numbers.

    A weight whose shape is not known yet is accepted.
    """
    shape = weight.shape
    is_matrix = shape is None or (len(shape) == 2 and shape[1] == width)
    return is_matrix and (bias is None or bias.shape[0] == width)


def _numpy(value: Value) -> np.dtype:
    return value.dtype.numpy()


def _integers(*values: int) -> Value:
    return op.Constant(value=ir.tensor(np.array(values, "int64")))
