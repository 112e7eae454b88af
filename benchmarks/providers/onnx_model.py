"""A case's layer as an ONNX model, for runtimes that read ONNX."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from seqcells.request.weights import Weights

from ..case import Case
from .base import ONE_LAYER

# cell → operator, the places of its gates among ours, attributes. ONNX' LSTM has the order i, o, f, c; GRU z, r, h.
OPERATORS: dict[str, tuple[str, tuple[int, ...], dict[str, Any]]] = {
    "lstm": ("LSTM", (0, 3, 1, 2), {}),
    "peephole_lstm": ("LSTM", (0, 3, 1, 2), {}),
    "gru": ("GRU", (1, 0, 2), {"linear_before_reset": 1}),
    "rnn_tanh": ("RNN", (0,), {"activations": ["Tanh"]}),
    "rnn_relu": ("RNN", (0,), {"activations": ["Relu"]}),
}


def why_not(case: Case) -> str | None:
    """Why no ONNX runtime can run the case, or None."""
    if case.suite.gradients:
        return "ONNX runtimes do inference only"
    if case.suite.layers > 1:
        return ONE_LAYER
    if case.dtype_name != "float32":
        return f"not offered in {case.dtype_name} here"
    return None if case.cell_name in OPERATORS else f"ONNX has no {case.cell_name}"


def model(case: Case, weights: Weights) -> bytes:
    """A model with the inputs X (T, B, I) and the states (1, B, H), T and B fixed. Its outputs are Y (T, 1, B, H) and
    the states."""
    from onnx import TensorProto, helper, numpy_helper

    operator, order, attributes = OPERATORS[case.cell_name]
    batch, hidden, _ = case.shape
    steps = 1 if case.suite.streaming else case.shape.steps

    def gates(tensor: Tensor) -> np.ndarray:
        blocks = tensor.chunk(len(order))
        return torch.cat([blocks[place] for place in order]).numpy()

    constants = {
        "W": gates(weights.ih)[None],
        "R": gates(weights.hh)[None],
        "B": np.concatenate([gates(weights.bias_ih), gates(weights.bias_hh)])[None],
    }
    states = list(case.cell.states)
    names = ["X", "W", "R", "B", "", *states]
    if weights.own:
        constants["P"] = weights.own[0][[0, 2, 1]].reshape(1, -1).numpy()  # i, o, f
        names.append("P")
    outputs = ["Y", *(f"{state}_n" for state in states)]
    node = helper.make_node(operator, names, outputs, hidden_size=hidden, **attributes)

    def declared(name: str, *sizes: int) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes)

    graph = helper.make_graph(
        [node],
        case.cell_name,
        [declared("X", steps, batch, case.features), *(declared(state, 1, batch, hidden) for state in states)],
        [declared("Y", steps, 1, batch, hidden), *(declared(name, 1, batch, hidden) for name in outputs[1:])],
        [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)])
    made.ir_version = 8  # a version that every runtime of the last years reads
    return made.SerializeToString()
