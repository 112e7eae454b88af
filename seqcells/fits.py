"""Whether the tensors of a recurrence are those of its cell, and fit together."""

import torch
from torch import Tensor

from . import checks
from .recurrence import Recurrence


def check(q: Recurrence) -> None:
    """Kernels go by addresses, and would read and write elsewhere.

    Raises:
        RuntimeError, TypeError, NotImplementedError: a tensor is missing or not the cell's, or of a size, device or
            dtype that does not fit to the others'.
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
    gates, products = len(cell.gates) * hidden, len(cell.recurrent_gates) * hidden
    side_by_side = 1 if q.stacked else directions
    expected: list[tuple[str, Tensor | None, tuple[int, ...]]] = []
    if not own:
        expected.append(("gates_x", x, (steps, batch, side_by_side * gates)))
    for states in (q.states, q.reset_states or ()):
        for k, state in enumerate(states):
            expected.append((cell.states[k], state, (directions, batch, hidden if k else width)))
    first = q.weights[0]
    for k, w in enumerate(q.weights):
        if own or (q.stacked and k):
            size = hidden if k and q.stacked else features
            expected += [("weight_ih", w.ih, (gates, size)), ("bias_ih", w.bias_ih, (gates,))]
            _is_there("weight_ih", w.ih, True)
        _is_there("weight_hh", w.hh, bool(cell.recurrent_gates))
        _is_there("weight_hr", w.hr, first.hr is not None)
        _is_there("bias_hh", w.bias_hh, first.bias_hh is not None)
        if first.hr is not None and not cell.projection:
            raise RuntimeError(f"the {cell.name} cell has no projection: weight_hr should be None")
        shapes = cell.own_shapes(hidden)
        unbiased = {name: shape for name, shape in shapes.items() if not name.startswith("bias")}
        shapes = unbiased if len(w.own) == len(unbiased) else shapes
        _has(f"{cell.name} expects {{}} parameters of its own, got {{}}", len(shapes), len(w.own))
        expected += [("weight_hh", w.hh, (products, width // cell.heads())), ("bias_hh", w.bias_hh, (products,))]
        expected.append(("weight_hr", w.hr, (width, hidden)))
        for (name, shape), tensor in zip(shapes.items(), w.own, strict=True):
            _is_there(name, tensor, True)
            expected.append((name, tensor, shape))
    if first.hr is None and width != hidden:
        raise RuntimeError(f"Expected {cell.states[0]} of {hidden} units, got {width}, without a projection")
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
