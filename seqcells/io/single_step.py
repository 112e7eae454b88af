"""A layer's step by itself, for graphs that loop over it without the package: ONNX' Scan, and torch's scan."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import statically_known_true

from ..backends.reference import stepping
from ..cells import Cell
from ..derive.named_values import keeping
from ..request.weights import Weights

MASKS = "valid", "boundary"
"""Whether a time step lies within its sequence, and whether states are reset before it: (T, N) each."""


class Layout(NamedTuple):
    """The arguments of the step of one direction, by name: states, then ``steps``, then ``others``."""

    cell: type[Cell]
    states: tuple[str, ...]
    steps: tuple[str, ...]
    """The arguments with a value for each time step: the input's gates, streams, `MASKS`."""
    others: tuple[str, ...]
    """The arguments that are the same for all time steps: weights, states after a reset, streams of a sequence."""
    kept: tuple[str, ...]
    hidden: int


def stepper(
    layout: Layout, others: Sequence[Tensor]
) -> Callable[[Sequence[Tensor], Sequence[Tensor]], tuple[list[Tensor], list[Tensor]]]:
    """A function that runs one step, given the arguments that are the same for all time steps.

    The function takes the states and the values of the time step, each (N, ·). It returns the new states, and a list
    of the output and the kept values.
    """
    cell, given = layout.cell, dict(zip(layout.others, others, strict=True))
    own = tuple(given[name] for name in cell.own_names() if name in given)
    common = {"hh": given.get("weight_hh"), "bias_hh": given.get("bias_hh"), "hr": given.get("weight_hr")}
    advance = stepping(keeping(cell, layout.kept) if layout.kept else cell, Weights(**common, own=own), layout.hidden)
    results, states, gates = (cell.output or cell.states[0], *layout.kept), cell.states, len(cell.gates)
    reset_states = [given.get(f"reset_state_{name}") for name in states]
    place = {name: k for k, name in enumerate(layout.steps)}
    valid, boundary = (place.get(name) for name in MASKS)
    # Each stream has a place among the step's values, or is the same for all steps; the absent one is None. The third
    # item is whether the stream is one number of each sequence.
    streams = [
        (place.get(f"stream_{name}"), given.get(f"stream_{name}"), not axes.strip("TB"))
        for name, axes in cell.streams.items()
    ]

    def step(before: Sequence[Tensor], now: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        if boundary is not None:
            mask = now[boundary].unsqueeze(1)
            begin = [torch.zeros_like(s) if f is None else f for f, s in zip(reset_states, before, strict=True)]
            before = [torch.where(mask, f, s) for f, s in zip(begin, before, strict=True)]
        x = [*now[place["gates_x"]].chunk(gates, -1)] if gates else []
        for k, stream, is_number in streams:
            value = stream if k is None else now[k]
            if value is None:
                raise ValueError(f"the {cell.name} cell is missing a stream")
            x.append(value.unsqueeze(-1) if is_number else value)
        made = advance(x, before)
        new, found = [made[name] for name in states], [made[name] for name in results]
        found = [
            each.expand(before[0].shape[0], -1) if statically_known_true(each.shape[0] == 1) else each for each in found
        ]
        if valid is not None:
            mask = now[valid].unsqueeze(1)
            new = [torch.where(mask, n, s) for n, s in zip(new, before, strict=True)]
            found = [torch.where(mask, each, 0) for each in found]
        return new, found

    return step


class Parts(NamedTuple):
    """The arguments of one direction of a layer, by name."""

    states: dict[str, Any]
    steps: dict[str, Any]
    others: dict[str, Any]
    layout: Layout


def parts(
    cell: type[Cell],
    given: Mapping[str, Any],
    d: int,
    kept: tuple[str, ...],
    masks: Mapping[str, Any],
    at: Callable[[Any, int], Any],
    columns: Callable[[Any, int, int], Any],
) -> Parts:
    """One direction's part of the operator's tensors, which may be torch's tensors or values of an ONNX graph.

    Args:
        given: the tensors by the operator's names.
        d: the direction.
        kept: names of the values to keep.
        masks: the masks of `MASKS` that the call has.
        at: a function (value, index) → the value at an index of its first axis.
        columns: a function (value, start, end) → the slice of a value's last axis.
    """
    hidden = hidden_units(cell, given)
    states = {f"state_{name}": at(given[f"state_{name}"], d) for name in cell.states}
    steps: dict[str, Any] = {}
    others: dict[str, Any] = {}
    if cell.gates:
        width = len(cell.gates) * hidden
        whole = given["gates_x"].shape[2] == width
        steps["gates_x"] = given["gates_x"] if whole else columns(given["gates_x"], d * width, (d + 1) * width)
    for name, axes in cell.streams.items():
        (steps if "T" in axes else others)[f"stream_{name}"] = at(given[f"stream_{name}"], d)
    steps |= masks
    for name, value in given.items():
        if name.endswith(f"_{d}") and name.startswith(("weight_", "bias_")):
            others[name.removesuffix(f"_{d}")] = value
        elif name.startswith("reset_state_"):
            others[name] = at(value, d)
    return Parts(states, steps, others, Layout(cell, tuple(states), tuple(steps), tuple(others), kept, hidden))


def hidden_units(cell: type[Cell], given: Mapping[str, Any]) -> int:
    """The number of hidden units, from the sizes of the operator's tensors."""
    if cell.gates:
        return given["gates_x"].shape[2] // (len(cell.gates) * given[f"state_{cell.states[0]}"].shape[0])
    name = next(name for name, letter in cell.state_sizes.items() if letter == "H")
    return given[f"state_{name}"].shape[2]
