"""ONNX graphs and the layers of seqcells: `pip install seqcells[onnx]`.

``load(path)`` makes modules of a graph's recurrent nodes. The other way is torch's: ``torch.onnx.export(model, args,
dynamo=True, custom_translation_table=seqcells.io.onnx.translations())``.
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
    """The LSTM, GRU and RNN nodes of a graph, and of the graphs in it, as modules with copies of their weights.

    Weights that the graph computes of constants are computed. Nodes in the model's functions are found, too, once for
    each call.

    Args:
        model: a file, its bytes, or a model.
        values: weights that are the graph's inputs, tensors or arrays by name; they count before an initializer of
            that name. Default: none
        backend: of the layers, see `seqcells.call.choose`. Default: ``"auto"``

    Returns:
        The modules by the nodes' names, or by their first outputs where they have none; a second of one name is
        ``name_2``.

    Raises:
        ValueError: a weight is no constant, or a node does not fit to its operator.
    """
    if isinstance(model, bytes):
        model = onnx.load_model_from_string(model)
    elif not isinstance(model, onnx.ModelProto):
        model = onnx.load(model)
    nodes = recurrent_nodes(model, values or {})
    return {name: of_node(node, constants, backend) for name, node, constants in nodes}


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """What torch.onnx.export is to make of the package's operator, for its ``custom_translation_table``.

    Layers of the cells that ONNX has nodes for become LSTM, GRU and RNN nodes, with ``lengths`` as ``sequence_lens``;
    everything else becomes a Scan over the cell's step. Time steps and sequences may be dynamic.

    Raises:
        ImportError: onnxscript, which torch's exporter needs, is not installed.
    """
    from .export import nonzero_static, recurrence

    return {
        torch.ops.seqcells.recurrence.default: recurrence,
        torch.ops.aten.nonzero_static.default: nonzero_static,  # of packed inputs, which torch's exporter has not
    }
