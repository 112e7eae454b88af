"""The check that the tensors of a recurrence match its cell and each other."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from ..cells import Cell
from . import checks
from .recurrence import Recurrence


def check(q: Recurrence) -> None:
    """Check all tensors of a recurrence. Kernels read raw addresses: a wrong size would make them access other memory.

    Raises:
        RuntimeError: a tensor is missing or unexpected, or its size, device or dtype does not match.
        TypeError: ``reset`` is not bool, ``lengths`` are no integers, or the cell lacks an option.
        NotImplementedError: layers do not accept the dtype.
        ValueError: ``reset_states`` are given without ``reset``.
    """
    cell, x, directions = q.cell, q.outside, len(q.weights)
    checks.cell(cell)
    checks.dtype(x.dtype)
    _has(f"{cell.name} expects {{}} hidden states, got {{}}", len(cell.states), len(q.states))
    if q.reset_states is not None:
        _has(f"{cell.name} expects {{}} reset states, got {{}}", len(cell.states), len(q.reset_states))
    for name, state in zip(cell.states * 2, [*q.states, *(q.reset_states or ())], strict=False):
        _is_there(name, state, True)
    if not directions:
        raise RuntimeError("Expected weights of one or two directions, got none")
    if x.dim() != 3:
        raise RuntimeError(f"Expected an input of 3 dimensions (time, batch, features), got {x.dim()}")
    checks.has_steps(x)
    for name, state in zip(cell.states, q.states, strict=True):
        if state.dim() != 3:
            raise RuntimeError(f"Expected {name} of 3 dimensions (directions, batch, units), got {state.dim()}")
    if any(w.hr is not None and w.hr.dim() != 2 for w in q.weights):
        raise RuntimeError("Expected weight_hr of 2 dimensions")
    own, hidden, width = q.input is not None, q.hidden, q.states[0].shape[-1]
    steps, batch, features = x.shape
    first, sizes = q.weights[0], q.sizes
    gates, products = len(cell.gates) * hidden, len(cell.recurrent_gates) * hidden
    side_by_side = 1 if q.stacked else directions
    expected: list[tuple[str, Tensor | None, tuple[int, ...]]] = []
    if not own:
        expected.append(("gates_x", x, (steps, batch, side_by_side * gates)))
    for k, (name, letter) in enumerate(cell.state_sizes.items()):
        units = width if not k and first.hr is not None else _size(cell, name, letter, sizes)
        both = q.states[k], None if q.reset_states is None else q.reset_states[k]
        expected += [(name, state, (directions, batch, units)) for state in both]
    for k, w in enumerate(q.weights):
        if own or (q.stacked and k):
            size = hidden if k and q.stacked else features
            expected += [("weight_ih", w.ih, (gates, size)), ("bias_ih", w.bias_ih, (gates,))]
            _is_there("weight_ih", w.ih, bool(cell.gates))
        _is_there("weight_hh", w.hh, bool(cell.recurrent_gates))
        _is_there("weight_hr", w.hr, first.hr is not None)
        _is_there("bias_hh", w.bias_hh, first.bias_hh is not None)
        if first.hr is not None and not cell.projection:
            raise RuntimeError(f"the {cell.name} cell has no projection: weight_hr should be None")
        shapes = cell.own_shapes(hidden, sizes.get("F", 0))
        unbiased = {name: shape for name, shape in shapes.items() if not name.startswith("bias")}
        shapes = unbiased if len(w.own) == len(unbiased) else shapes
        _has(f"{cell.name} expects {{}} parameters of its own, got {{}}", len(shapes), len(w.own))
        heads = cell.every_product["hh"].heads if products else 1
        expected += [("weight_hh", w.hh, (products, width // heads)), ("bias_hh", w.bias_hh, (products,))]
        expected.append(("weight_hr", w.hr, (width, hidden)))
        for (name, shape), tensor in zip(shapes.items(), w.own, strict=True):
            _is_there(name, tensor, True)
            expected.append((name, tensor, shape))
    if first.hr is None and width != _size(cell, cell.states[0], cell.state_sizes[cell.states[0]], sizes):
        raise RuntimeError(f"Expected {cell.states[0]} of {hidden} units, got {width}, without a projection")
    expected += _streams(q, batch)
    for name, tensor, shape in expected:
        if tensor is not None:
            _fits(name, tensor, shape, x.device)
            if tensor.dtype != x.dtype:
                raise RuntimeError(
                    "Input and hidden or parameter tensors are not the same dtype, "
                    f"found input tensor with {x.dtype} and {name} with {tensor.dtype}"
                )
    for name, tensor, shape in (("lengths", q.lengths, (batch,)), ("reset", q.reset, (steps, batch))):
        if tensor is not None:
            _fits(name, tensor, shape, x.device)
    if q.reset is not None and q.reset.dtype != torch.bool:
        raise TypeError(f"reset should be of dtype torch.bool, got: {q.reset.dtype}")
    if q.lengths is not None:
        checks.integers("lengths", q.lengths)
    if q.reset_states is not None and q.reset is None:
        raise ValueError("reset_state should only be given with reset")


def _streams(q: Recurrence, batch: int) -> Iterator[tuple[str, Tensor, tuple[int, ...]]]:
    """The name, the tensor and the expected shape of each stream. RuntimeError if the names are not the cell's."""
    cell, given = q.cell, q.input
    sizes = q.sizes | {"T": q.outside.shape[0], "B": batch}
    wanted = {name: axes for name, axes in cell.streams.items() if given is None or name != "input"}
    if [*q.streams] != [*wanted]:
        raise RuntimeError(f"{cell.name} expects streams {[*wanted]}, got {[*q.streams]}")
    for name, axes in wanted.items():
        shape = [_size(cell, name, axis, sizes) for axis in axes]
        yield name, q.streams[name], (len(q.weights), *shape)
    if given is not None and "input" in cell.streams:
        shape = tuple(_size(cell, "input", axis, sizes) for axis in cell.streams["input"])
        yield "the input, which its step reads,", given, shape


def _size(cell: type[Cell], name: str, letter: str, sizes: Mapping[str, int]) -> int:
    if letter not in sizes:
        raise RuntimeError(f"{cell.name} has no size for {name}: nothing that is given is as large as the input")
    return sizes[letter]


def _has(words: str, expected: int, found: int) -> None:
    if found != expected:
        raise RuntimeError(words.format(expected, found))


def _is_there(name: str, tensor: Tensor | None, wanted: bool) -> None:
    if (tensor is not None) != wanted:
        raise RuntimeError(f"Expected {name} to be " + ("a tensor, got None" if wanted else "None, got a tensor"))


def _fits(name: str, tensor: Tensor, shape: tuple[int, ...], device: torch.device) -> None:
    checks.size(name, tensor, shape)
    if tensor.device != device:
        raise RuntimeError(f"Expected {name} on {device}, like the input, but it is on {tensor.device}")
