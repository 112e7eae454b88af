"""A layer as ONNX' Scan whose body is the cell's step, for cells and arguments for which ONNX has no node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from onnxscript import evaluator, ir
from torch import Tensor, nn

from ...cells import Cell
from ..single_step import MASKS, Layout, parts, stepper
from .opset import Value, op

SAMPLE = 3
"""The number of sequences of the sample with which the step is exported."""


class Step(nn.Module):
    """The step as a module that takes all tensors of the layout, in the layout's order."""

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.layout = layout

    def forward(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The new states, the output and the kept values."""
        states, steps = len(self.layout.states), len(self.layout.steps)
        step = stepper(self.layout, tensors[states + steps :])
        new, found = step(tensors[:states], tensors[states : states + steps])
        return new + found


def scan(
    cell: type[Cell], given: Mapping[str, Value], directions: int, reverse: bool, kept: tuple[str, ...]
) -> list[Value]:
    """The operator's results, from its tensors by name."""
    sides = [_direction(cell, given, d, reverse or d == 1, kept) for d in range(directions)]
    count = len(cell.states)
    finals = [_stacked([side[k] for side in sides]) for k in range(count)]
    output, *others = (op.Concat(*each, axis=-1) for each in zip(*(side[count:] for side in sides), strict=True))
    return [output, *finals, *others]


def _direction(
    cell: type[Cell], given: Mapping[str, Value], d: int, backwards: bool, kept: tuple[str, ...]
) -> list[Value]:
    """The final states of one direction, then the outputs and the kept values of all time steps."""
    states, steps, others, layout = parts(cell, given, d, kept, _masks(given, backwards), _at, _columns)
    body = _body(layout, _samples(layout, given), [*others.values()], f"step_{d}")
    count, ways = len(cell.states) + 1 + len(kept), [int(backwards)]
    attributes = {"body": body, "num_scan_inputs": len(steps), "scan_input_directions": ways * len(steps)}
    attributes["scan_output_directions"] = ways * (1 + len(kept))
    # onnxscript's function for Scan returns one output, so the node is made directly.
    node = ir.node("Scan", [*states.values(), *steps.values()], attributes, num_outputs=count)
    recorder: Any = evaluator.default()  # the evaluator of torch's exporter
    recorder.nodes.append(node)
    return [*node.outputs]


def _masks(given: Mapping[str, Value], backwards: bool) -> dict[str, Value]:
    """The masks of `seqcells.request.boundaries` in ONNX, (T, N) each."""
    found, steps = {}, op.Shape(given["gates_x"], start=0, end=1)
    if "lengths" in given:
        zero, one = op.Constant(value_int=0), op.Constant(value_int=1)
        times = op.Unsqueeze(op.Range(zero, op.Squeeze(steps), one), [1])
        found["valid"] = op.Less(times, op.Unsqueeze(op.Cast(given["lengths"], to=ir.DataType.INT64), [0]))
    if "reset" in given:
        reset = op.And(given["reset"], found["valid"]) if found else given["reset"]
        if backwards:
            last = op.Slice(reset, [0], [1], [0])
            reset = op.Concat(op.Slice(reset, [1], [2**62], [0]), op.And(last, op.Not(last)), axis=0)
        found["boundary"] = reset
    return found


def _at(value: Value, d: int) -> Value:
    """The part of direction ``d`` of a value whose first axis is the directions."""
    return op.Gather(value, op.Constant(value_int=d), axis=0)


def _columns(value: Value, start: int, end: int) -> Value:
    return op.Slice(value, [start], [end], [2])


def _stacked(values: Sequence[Value]) -> Value:
    return op.Concat(*(op.Unsqueeze(value, [0]) for value in values), axis=0)


def _samples(layout: Layout, given: Mapping[str, Value]) -> list[Tensor]:
    """Sample tensors for the step, of `SAMPLE` sequences."""
    like, axes = given["weight_hh_0"] if "weight_hh_0" in given else given["gates_x"], {}
    axes |= {f"stream_{name}": letters for name, letters in layout.cell.streams.items()}
    found = []
    for name in (*layout.states, *layout.steps, *layout.others):
        if name in MASKS:
            found.append(torch.zeros(SAMPLE, dtype=torch.bool))
        elif name == "gates_x":
            found.append(torch.zeros(SAMPLE, len(layout.cell.gates) * layout.hidden, dtype=_dtype(like)))
        elif name.startswith(("weight_", "bias_")):
            value = given[f"{name}_0"]
            found.append(torch.zeros([int(size) for size in value.shape], dtype=_dtype(value)))
        else:  # a state or stream: the first axis is the directions, a second one may be the time steps
            value = given[name]
            last = value.shape[-1] if axes.get(name, "BH").strip("TB") else None
            sizes = [SAMPLE] if last is None else [SAMPLE, int(last)]
            found.append(torch.zeros(sizes, dtype=_dtype(value)))
    return found


def _dtype(value: Value) -> torch.dtype:
    return torch.from_numpy(np.zeros(0, value.dtype.numpy())).dtype


def _body(layout: Layout, samples: list[Tensor], others: Sequence[Value], name: str) -> ir.Graph:
    """The step as an ONNX graph, which reads values that are the same for all steps from the surrounding graph."""
    batch = torch.export.Dim("batch", min=1)
    names = (*layout.states, *layout.steps, *layout.others)
    shapes = [None if each.startswith(("weight_", "bias_")) else {0: batch} for each in names]
    program = torch.onnx.export(
        Step(layout).eval(), (samples,), dynamo=True, dynamic_shapes=(shapes,), optimize=True, verbose=False
    )
    if program is None:
        raise RuntimeError("torch.onnx.export made no program of the step")
    graph = program.model.graph
    first = len(layout.states) + len(layout.steps)
    for inner, outer in zip(graph.inputs[first:], others, strict=True):
        ir.convenience.replace_all_uses_with(inner, outer)
    del graph.inputs[first:]
    # All names must differ from the names in the surrounding graph.
    graph.name = name
    for node in graph:
        node.name = f"{name}_{node.name}"
        for value in node.outputs:
            value.name = f"{name}_{value.name}"
    for value in [*graph.inputs, *graph.initializers.values()]:
        value.name = f"{name}_{value.name}"
    return graph
