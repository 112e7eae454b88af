"""The recurrent nodes of an ONNX graph, and the graph's constants, which no input of the graph changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any, cast

import numpy as np
import onnx
import torch
from onnx import inliner, numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import Tensor

from .nodes import ORDERS, WEIGHTS

Lookup = Callable[[str], np.ndarray | None]
"""A function: name → the constant of that name, or None if it is no constant."""
RANDOM = {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
"""Operators whose results are not constant even if their inputs are."""


def recurrent_nodes(
    model: onnx.ModelProto, given: Mapping[str, Any]
) -> Iterator[tuple[str, onnx.NodeProto, dict[str, Tensor]]]:
    """The recurrent nodes of a model's graph and its subgraphs: a unique name, the node, and its constant weights.

    Args:
        given: values of the graph's inputs, by name, in any form that `torch.as_tensor` takes.

    Raises:
        ValueError: a function of the model is of another opset, so ONNX cannot inline it.
    """
    if model.functions:
        model = inliner.inline_local_functions(model)
        if model.functions:
            names = ", ".join(each.name for each in model.functions)
            raise ValueError(f"functions of the model are of another opset than the model: {names}")
    opsets, taken = [*model.opset_import], set()
    inputs = {name: torch.as_tensor(value).detach().cpu() for name, value in given.items()}
    for node, value in _nodes(model.graph, opsets, lambda name: None, inputs):
        first = node.name or next(filter(None, node.output), node.op_type)
        count, name = 1, first
        while name in taken:
            count += 1
            name = f"{first}_{count}"
        taken.add(name)
        names = [node.input[k] for k in WEIGHTS.values() if k < len(node.input) and node.input[k]]
        found = {each: inputs.get(each) if each in inputs else _tensor(value(each)) for each in names}
        yield name, node, {each: tensor for each, tensor in found.items() if tensor is not None}


def _nodes(
    graph: onnx.GraphProto, opsets: list[Any], outer: Lookup, given: Mapping[str, Tensor]
) -> Iterator[tuple[onnx.NodeProto, Lookup]]:
    """The recurrent nodes, each with a function that looks up constants in the scope of the node's graph."""
    stored = {each.name: each for each in graph.initializer}
    sparse = {each.values.name: each for each in graph.sparse_initializer}
    producers = {name: node for node in graph.node for name in node.output if name}
    own = {each.name for each in graph.input}

    @cache
    def value(name: str) -> np.ndarray | None:
        if name in given:
            tensor = given[name]
            return tensor.float().numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy()
        if name in stored:
            return numpy_helper.to_array(stored[name])
        if name in sparse:
            return _dense(sparse[name])
        if name in producers:
            return _computed(producers[name], name, value, opsets)
        return None if name in own else outer(name)

    for node in graph.node:
        if node.op_type in ORDERS and node.domain in ("", "ai.onnx"):
            yield node, value
        for each in node.attribute:
            for inner in [each.g] if each.type == onnx.AttributeProto.GRAPH else each.graphs:
                yield from _nodes(inner, opsets, value, {})


def _computed(node: onnx.NodeProto, name: str, value: Lookup, opsets: list[Any]) -> np.ndarray | None:
    """The result of a node with this name if all its inputs are constants, else None."""
    if node.op_type in RANDOM | {*ORDERS} or any(each.HasField("g") or each.graphs for each in node.attribute):
        return None
    feeds = {each: value(each) for each in node.input if each}
    if any(each is None for each in feeds.values()):
        return None
    # Runs a model of this node alone. Its inputs have the types of the arrays that they are fed with.
    infos = [onnx.helper.make_value_info(each, onnx.TypeProto()) for each in feeds]
    result = onnx.helper.make_value_info(name, onnx.TypeProto())
    alone = onnx.helper.make_graph([node], "constant", infos, [result])
    evaluator = ReferenceEvaluator(onnx.helper.make_model(alone, opset_imports=opsets))
    (found,) = cast("list[Any]", evaluator.run([name], feeds))  # one result, as one name is asked for
    return np.asarray(found)


def _dense(sparse: onnx.SparseTensorProto) -> np.ndarray:
    """The dense array of a sparse initializer, whose indices are flat, or one row for each element."""
    values, places = numpy_helper.to_array(sparse.values), numpy_helper.to_array(sparse.indices)
    dense = np.zeros([*sparse.dims], values.dtype)
    if places.ndim == 1:
        dense.flat[places] = values
    else:
        dense[tuple(places.T)] = values
    return dense


def _tensor(value: np.ndarray | None) -> Tensor | None:
    if value is None:
        return None
    if value.dtype.name == "bfloat16":  # torch cannot convert this dtype from numpy
        return torch.from_numpy(value.astype("float32")).bfloat16()
    return torch.from_numpy(np.array(value))
