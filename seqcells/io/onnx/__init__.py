"""ONNX graphs and the layers of seqcells: `pip install seqcells[onnx]`.

``load(path)`` turns a graph's recurrent nodes into modules. The other direction is torch's exporter:
``torch.onnx.export(model, args, dynamo=True, custom_translation_table=seqcells.io.onnx.translations())``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from os import PathLike
from typing import Any

import onnx
import torch

from .graphs import recurrent_nodes
from .nodes import Node, of_node

__all__ = ["Node", "load", "of_node", "translations"]


def load(
    model: str | PathLike[str] | bytes | onnx.ModelProto,
    values: Mapping[str, Any] | None = None,
    *,
    backend: str = "auto",
) -> dict[str, Node]:
    """The LSTM, GRU and RNN nodes of a graph and its subgraphs, as modules with copies of their weights.

    Weights that the graph computes from constants are computed. Nodes in the model's functions are found too, once for
    each call of the function.

    Args:
        model: the path of a file, the bytes of a file, or a model.
        values: weights that are inputs of the graph, tensors or arrays by name; they have priority over an initializer
            with the same name. Default: none
        backend: the backend of the layers, see `seqcells.call.choose`. Default: ``"auto"``

    Returns:
        The modules by the nodes' names, or by their first outputs if they have no names. A second module of one name is
        ``name_2``.

    Raises:
        ValueError: a weight is no constant, or a node does not match its operator's specification.
    """
    if isinstance(model, bytes):
        model = onnx.load_model_from_string(model)
    elif not isinstance(model, onnx.ModelProto):
        model = onnx.load(model)
    nodes = recurrent_nodes(model, values or {})
    return {name: of_node(node, constants, backend) for name, node, constants in nodes}


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """How torch.onnx.export translates the package's operator: a ``custom_translation_table``.

    Layers become LSTM, GRU and RNN nodes if ONNX has a node for the cell, with ``lengths`` as ``sequence_lens``. All
    other layers become a Scan over the cell's step. The numbers of time steps and sequences may be dynamic.

    Raises:
        ImportError: onnxscript, which torch's exporter needs, is not installed.
    """
    from .export import nonzero_static, recurrence

    return {
        torch.ops.seqcells.recurrence.default: recurrence,
        torch.ops.aten.nonzero_static.default: nonzero_static,  # for packed inputs; torch's exporter lacks it
    }
