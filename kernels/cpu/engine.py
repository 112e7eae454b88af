"""The engine's functions, as `seqcells.ops` has them, and `infer` and `stepper`, which take a layer's input.

States and sums are float32 or float64; float16 and bfloat16 are storage, bfloat16 also what is multiplied where the
machine has a unit for that.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ...boundaries import boundaries, valid_steps
from ...cells import Cell
from ...precision import WORKING_DTYPE
from ...weights import Weights
from . import _engine
from .library import PRECISIONS, Kernels, kernels, pooled, precision, reads
from .linear import gemm, linear

__all__ = ["backward", "forward", "infer", "kernels", "linear", "reads", "saved_like", "stepper"]

_MAX_STATES = 4
# fmt: off
_FIELDS = (
    "steps", "batch", "hidden", "projected", "reverse", "threads", "gates_x", "input",
    "weight_ih", "bias_ih", "features", "initial", "weight_hh", "bias_hh", "weight_hr", "unit",
    "lengths", "reset", "reset_states", "output", "final", "saved", "path", "previous_hidden",
    "grad_output", "grad_final", "grad_gates_x", "grad_product", "grad_projected", "grad_initial", "grad_reset",
    "grad_unit", "grad_bias",
)
# fmt: on
"""The fields of ``Problem`` in problem.h, in order."""
_PER_STATE = {"initial", "reset_states", "final", "path", "grad_final", "grad_initial", "grad_reset"}


_PLACES: dict[str, int] = {}
"""Where each field begins; those of one address a state are followed by room for the others."""
_COUNT = 0
for _name in _FIELDS:
    _PLACES[_name] = _COUNT
    _COUNT += _MAX_STATES if _name in _PER_STATE else 1


def _fields(given: dict[str, Any]) -> list[int]:
    """All fields of ``Problem``, in order; zero for those not given."""
    flat = [0] * _COUNT
    for name, value in given.items():
        place = _PLACES[name]
        if isinstance(value, Tensor):
            flat[place] = value.data_ptr()
        elif isinstance(value, int):
            flat[place] = value
        elif value is not None:
            for state, tensor in enumerate(value, place):
                flat[state] = 0 if tensor is None else tensor.data_ptr()
    return flat


class _Call:
    """The arguments as the kernels want them: contiguous, of the dtype that they read."""

    def __init__(
        self,
        cell: type[Cell],
        gates_x: Tensor,
        states: Sequence[Tensor],
        weights: Weights,
        lengths: Tensor | None,
        reset: Tensor | None,
        reset_states: Sequence[Tensor] | None,
        reverse: bool,
    ) -> None:
        self.cell, self.storage = cell, gates_x.dtype
        self.working = WORKING_DTYPE.get(gates_x.dtype, gates_x.dtype)
        self.precision = precision(gates_x.dtype)
        self.dtype = PRECISIONS[self.precision]
        self.kernels = kernels(cell.name, self.precision)
        self.steps, self.batch = gates_x.shape[:2]
        self.hidden = states[-1].shape[1] if weights.hr is None else weights.hr.shape[1]
        self.projected = states[0].shape[1]
        self.states = [self.plain(state) for state in states]
        self.weights = weights.recurrent.replaced([self.plain(w) for w in weights.recurrent.present()])
        self.unit = torch.cat(self.weights.unit) if len(weights.unit) > 1 else next(iter(self.weights.unit), None)
        self.lengths = None if lengths is None else lengths.to(torch.int64).contiguous()
        self.reset = None if reset is None else reset.contiguous()
        self.reset_states = None if reset_states is None else [self.plain(state) for state in reset_states]
        self.reverse = reverse
        self.fields = {
            "steps": self.steps,
            "batch": self.batch,
            "hidden": self.hidden,
            "projected": self.projected,
            "reverse": int(reverse),
            "threads": torch.get_num_threads(),
            "initial": self.states,
            "weight_hh": self.weights.hh,
            "bias_hh": self.weights.bias_hh,
            "weight_hr": self.weights.hr,
            "unit": self.unit,
            "lengths": self.lengths,
            "reset": self.reset,
            "reset_states": self.reset_states,
        }

    def run(self, backward: bool, fields: dict[str, Any]) -> None:
        _engine.run(self.kernels.handle, backward, *_fields({**self.fields, **fields}))

    def plain(self, tensor: Tensor) -> Tensor:
        return tensor if tensor.dtype == self.dtype and tensor.is_contiguous() else tensor.to(self.dtype).contiguous()

    def empty(self, *shape: int) -> Tensor:
        return pooled(shape, self.dtype)

    def working_like(self, tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else torch.empty_like(tensor, dtype=self.working)

    def stored(self, tensor: Tensor) -> Tensor:
        return tensor if self.storage == self.dtype else tensor.to(self.storage)

    def previous_hidden(self, output: Tensor) -> Tensor:
        """(T, B, P): the hidden state that each step's product read."""
        hidden = self.states[0].unsqueeze(0)
        before = torch.cat([output[1:], hidden] if self.reverse else [hidden, output[:-1]])
        valid = None if self.lengths is None else valid_steps(self.lengths, self.steps)
        if valid is not None and self.reverse:
            # Rows begin at their length, after steps whose output is zero.
            before = torch.where(torch.cat([valid[1:], torch.zeros_like(valid[:1])]).unsqueeze(-1), before, hidden)
        if self.reset is not None:
            fresh = torch.zeros_like(hidden) if self.reset_states is None else self.reset_states[0]
            before = torch.where(boundaries(self.reset, valid, self.reverse).unsqueeze(-1), fresh, before)
        return before


def forward(
    cell: type[Cell],
    gates_x: Tensor,
    states: Sequence[Tensor],
    weights: Weights,
    lengths: Tensor | None,
    reset: Tensor | None,
    reset_states: Sequence[Tensor] | None,
    reverse: bool,
    save: bool,
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """As `seqcells.ops` has it."""
    call = _Call(cell, gates_x, states, weights, lengths, reset, reset_states, reverse)
    output, final = call.empty(call.steps, call.batch, call.projected), list(map(torch.empty_like, call.states))
    saved = _saved(cell, gates_x, weights, pooled) if save else []
    values, *path = saved or [None]
    path = _path(call.kernels, weights, path)
    call.run(False, {"gates_x": call.plain(gates_x), "output": output, "final": final, "saved": values, "path": path})
    return call.stored(output), [call.stored(state) for state in final], saved


def backward(
    cell: type[Cell],
    gates_x: Tensor,
    states: Sequence[Tensor],
    weights: Weights,
    lengths: Tensor | None,
    reset: Tensor | None,
    reset_states: Sequence[Tensor] | None,
    reverse: bool,
    output: Tensor,
    saved: Sequence[Tensor],
    grad_output: Tensor,
    grad_final: Sequence[Tensor],
) -> list[Tensor]:
    """As `seqcells.ops` has it."""
    call = _Call(cell, gates_x, states, weights, lengths, reset, reset_states, reverse)
    values, *path = saved
    output = call.plain(output)
    previous = call.previous_hidden(output)
    shared = call.kernels.shared
    grad_gates_x = call.empty(*gates_x.shape)
    grad_product = call.empty(call.steps, call.batch, shared.count(-1) * call.hidden)
    projected = weights.hr is not None
    grad_projected = call.empty(*output.shape) if projected else None
    grad_states = [call.working_like(state) for state in call.states]
    grad_reset = None if reset_states is None else [call.working_like(state) for state in call.states]
    grad_unit, grad_bias = call.working_like(call.unit), call.working_like(call.weights.bias_hh)
    fields = {
        "output": output,
        "saved": values,
        "path": _path(call.kernels, weights, path),
        "previous_hidden": previous,
        "grad_output": call.plain(grad_output),
        "grad_final": [call.plain(g) for g in grad_final],
        "grad_gates_x": grad_gates_x,
        "grad_product": grad_product,
        "grad_projected": grad_projected,
        "grad_initial": grad_states,
        "grad_reset": grad_reset,
        "grad_unit": grad_unit,
        "grad_bias": grad_bias,
    }
    call.run(True, fields)
    grad_weights = Weights(hh=_grad_hh(call, shared, previous, grad_gates_x, grad_product), bias_hh=grad_bias)
    if projected:
        unprojected = call.plain(path[0].flatten(0, 1))
        grad_weights = grad_weights._replace(hr=gemm(grad_projected.flatten(0, 1).T, unprojected))
    if grad_unit is not None:
        grad_weights = grad_weights._replace(unit=grad_unit.split([len(w) for w in weights.unit]))
    grads = [grad_gates_x, *grad_states, *grad_weights.present(), *(grad_reset or ())]
    return [call.stored(grad) for grad in grads]


def _grad_hh(
    call: _Call, shared: tuple[int, ...], previous: Tensor, grad_gates_x: Tensor, grad_product: Tensor
) -> Tensor | None:
    """The gradient of weight_hh: one product over all steps for each run of gates that lie together."""
    if call.weights.hh is None:
        return None
    columns, own = [], 0
    for gate in shared:
        columns.append((grad_product, own) if gate < 0 else (grad_gates_x, gate))
        own += gate < 0
    grad = torch.empty_like(call.weights.hh)
    rows, first = call.hidden, 0
    while first < len(columns):
        source, column = columns[first]
        last = first
        while last < len(columns) and columns[last][0] is source and columns[last][1] == column + last - first:
            last += 1
        part = source.flatten(0, 1)[:, column * rows : (column + last - first) * rows]
        gemm(part.T, previous.flatten(0, 1), out=grad[first * rows : last * rows])
        first = last
    return grad


def saved_like(cell: type[Cell], gates_x: Tensor, states: Sequence[Tensor], weights: Weights) -> list[Tensor]:
    """As `seqcells.ops` has it: the values of all units (T, B, A·H), then the paths (T, B, H) that backward reads."""
    return _saved(cell, gates_x, weights, lambda shape, dtype: gates_x.new_empty(shape, dtype=dtype))


def _saved(
    cell: type[Cell], gates_x: Tensor, weights: Weights, empty: Callable[[Sequence[int], torch.dtype], Tensor]
) -> list[Tensor]:
    dtype = WORKING_DTYPE.get(gates_x.dtype, gates_x.dtype)
    row = kernels(cell.name)
    steps, batch, width = gates_x.shape
    hidden = width // len(cell.gates)
    return [empty((steps, batch, k * hidden), dtype) for k in (row.saves, *[1] * sum(_has_path(row, weights)))]


def _has_path(row: Kernels, weights: Weights) -> list[bool]:
    """For each state whether its values are kept: a hidden state that is the output needs no second copy."""
    return [weights.hr is not None, *map(bool, row.path[1:])]


def infer(
    cell: type[Cell],
    input: Tensor,
    states: Sequence[Tensor],
    weights: Weights,
    lengths: Tensor | None,
    reset: Tensor | None,
    reset_states: Sequence[Tensor] | None,
    reverse: bool,
) -> tuple[Tensor, list[Tensor]]:
    """`forward` with the input's projection inside: input (T, B, F) → output, final states. Not differentiable.

    The gates' parts from the input never exist as a whole: they are made for a few steps at a time, by the thread that
    uses them.
    """
    call = _Call(cell, input, states, weights, lengths, reset, reset_states, reverse)
    output, final = call.empty(call.steps, call.batch, call.projected), list(map(torch.empty_like, call.states))
    fields = {"input": call.plain(input), "features": input.shape[2], "output": output, "final": final}
    weight, bias = call.plain(weights.ih), None if weights.bias_ih is None else call.plain(weights.bias_ih)
    call.run(False, {**fields, "weight_ih": weight, "bias_ih": bias})
    return call.stored(output), [call.stored(state) for state in final]


def stepper(
    cell: type[Cell], input: Tensor, states: Sequence[Tensor], weights: Weights, final: Sequence[Tensor]
) -> Callable[[], None]:
    """A function that makes such a step from the given memory into the given memory, each time it is called.

    All must be contiguous; ``final`` may not overlap with ``states``. Weights are read where they lie: what is
    written to them between two calls counts in the second.
    """
    weights = weights.replaced([w.contiguous() for w in weights.present()])
    unit = torch.cat(weights.unit) if len(weights.unit) > 1 else next(iter(weights.unit), None)
    fields = _fields(
        {
            "steps": 1,
            "batch": input.shape[0],
            "hidden": weights.ih.shape[0] // len(cell.gates),
            "projected": states[0].shape[1],
            "threads": torch.get_num_threads(),
            "input": input,
            "features": input.shape[1],
            "weight_ih": weights.ih,
            "bias_ih": weights.bias_ih,
            "initial": states,
            "weight_hh": weights.hh,
            "bias_hh": weights.bias_hh,
            "weight_hr": weights.hr,
            "unit": unit,
            "output": final[0],
            "final": final,
        }
    )
    run, handle = _engine.run, kernels(cell.name, precision(input.dtype)).handle

    def make(alive: object = (input, states, weights, unit, final)) -> None:
        run(handle, False, *fields)

    return make


def _path(row: Kernels, weights: Weights, kept: Sequence[Tensor]) -> list[Tensor | None]:
    rest = iter(kept)
    return [next(rest, None) if has else None for has in _has_path(row, weights)]
