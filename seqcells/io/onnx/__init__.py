"""ONNX graphs and the layers of seqcells: `pip install seqcells[onnx]`.

``load(path)`` makes modules of a graph's recurrent nodes. The other way is torch's: ``torch.onnx.export(model, args,
dynamo=True, custom_translation_table=seqcells.io.onnx.translations())``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from os import PathLike
from typing import Any

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

from .nodes import ORDERS, Node, of_node

__all__ = ["Node", "load", "of_node", "translations"]


def load(
    model: str | PathLike[str] | bytes | onnx.ModelProto,
    values: Mapping[str, Tensor] | None = None,
    *,
    backend: str = "auto",
) -> dict[str, Node]:
    """The LSTM, GRU and RNN nodes of a graph, and of the graphs in it, as modules with copies of their weights.

    Args:
        model: a file, its bytes, or a model.
        values: weights that are the graph's inputs, by name. Default: none
        backend: of the layers, see `seqcells.call.choose`. Default: ``"auto"``

    Returns:
        The modules by the nodes' names, or by their first outputs where they have none.

    Raises:
        ValueError: something computes a weight, or a node does not fit to its operator.
    """
    if isinstance(model, bytes):
        model = onnx.load_model_from_string(model)
    elif not isinstance(model, onnx.ModelProto):
        model = onnx.load(model)
    return dict(_nodes(model.graph, dict(values or {}), backend))


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """What torch.onnx.export is to make of the package's operator, for its ``custom_translation_table``.

    Layers of the cells that ONNX has nodes for become LSTM, GRU and RNN nodes, with ``lengths`` as ``sequence_lens``;
    everything else becomes a Scan over the cell's step. Time steps and sequences may be dynamic.

    Raises:
        ImportError: onnxscript, which torch's exporter needs, is not installed.
    """
    from .export import recurrence

    return {torch.ops.seqcells.recurrence.default: recurrence}


def _nodes(graph: onnx.GraphProto, outer: Mapping[str, Tensor], backend: str) -> Iterator[tuple[str, Node]]:
    values = {**outer, **{each.name: _tensor(each) for each in graph.initializer}}
    for node in graph.node:
        attributes = {each.name: each for each in node.attribute}
        if node.op_type == "Constant" and "value" in attributes:
            values[node.output[0]] = _tensor(attributes["value"].t)
        elif node.op_type == "Identity" and node.input[0] in values:
            values[node.output[0]] = values[node.input[0]]
        elif node.op_type in ORDERS and node.domain in ("", "ai.onnx"):
            yield node.name or next(filter(None, node.output)), of_node(node, values, backend)
        for each in node.attribute:
            for inner in [each.g] if each.type == onnx.AttributeProto.GRAPH else each.graphs:
                yield from _nodes(inner, values, backend)


def _tensor(tensor: onnx.TensorProto) -> Tensor:
    if tensor.data_type == onnx.TensorProto.BFLOAT16:
        return torch.from_numpy(numpy_helper.to_array(tensor).astype("float32")).bfloat16()
    return torch.from_numpy(numpy_helper.to_array(tensor).copy())
