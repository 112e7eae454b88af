"""The engine's functions, as `seqcells.execute` has them, and `Inference`, which prepares many calls at once.

States and sums are float32 or float64; float16 and bfloat16 are storage, bfloat16 also what is multiplied where the
machine has a unit for that.
"""

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ... import fits
from ...boundaries import boundaries, valid_steps
from ...precision import WORKING_DTYPE
from ...recurrence import Backward, Recurrence
from ...weights import Weights
from . import _engine, library
from .library import PRECISIONS, Kernels, kernels, pooled, precision, threads
from .linear import gemm, linear, linear_gradients

__all__ = ["Inference", "backward", "forward", "kernels", "pooled", "saved_like"]

_MAX_STATES = 4
# fmt: off
_FIELDS = (
    "steps", "batch", "hidden", "projected", "reverse", "threads", "halves", "gates_width", "output_width",
    "gates_x", "input", "weight_ih", "bias_ih", "features", "initial", "weight_hh", "bias_hh", "weight_hr", "unit",
    "lengths", "reset", "reset_states", "packed", "output", "final", "saved", "path", "previous_hidden",
    "grad_output", "grad_final", "grad_gates_x", "grad_product", "grad_projected", "grad_initial", "grad_reset",
    "grad_unit", "grad_bias_ih", "grad_bias_hh",
)
# fmt: on
"""The fields of ``Problem`` in problem.h, in order."""
_WEIGHTS = "weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr", "unit"
"""Those of a direction's `Weights`, in order."""
_PER_STATE = {"initial", "reset_states", "final", "path", "grad_final", "grad_initial", "grad_reset"}


_PLACES: dict[str, int] = {}
"""Where each field begins; those of one address a state are followed by room for the others."""
_COUNT = 0
for _name in _FIELDS:
    _PLACES[_name] = _COUNT
    _COUNT += _MAX_STATES if _name in _PER_STATE else 1


def _place(name: str | tuple[str, int]) -> int:
    """Of a field, or of a state's."""
    return _PLACES[name] if isinstance(name, str) else _PLACES[name[0]] + name[1]


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
    """A recurrence as the kernels want it: contiguous, of the dtype that they read; its input projected by others, or
    inside the loop."""

    def __init__(self, q: Recurrence, inside: bool = False) -> None:
        x = q.outside
        self.cell, self.storage, self.reverse = q.cell, x.dtype, q.reversed
        self.working, self.precision = WORKING_DTYPE.get(x.dtype, x.dtype), precision(x.dtype)
        self.dtype = PRECISIONS[self.precision]
        self.steps, self.batch = x.shape[:2]
        self.directions, _, self.projected = q.states[0].shape
        self.hidden = q.hidden
        self.kernels = kernels(q.cell.name, self.precision)
        self.states = [self.plain(state) for state in q.states]
        weights = [w if inside else w.recurrent for w in q.weights]
        self.weights = [w.replaced([self.plain(tensor) for tensor in w.present()]) for w in weights]
        self.unit = [_unit(w) for w in self.weights]
        self.lengths = None if q.lengths is None else q.lengths.to(torch.int64).contiguous()
        self.reset = None if q.reset is None else q.reset.contiguous()
        self.reset_states = None if q.reset_states is None else [self.plain(state) for state in q.reset_states]

    def run(self, backward: bool, **fields: Any) -> None:
        _engine.run(self.kernels.handle, backward, *self.flat(fields))

    def flat(self, fields: dict[str, Any]) -> list[int]:
        """The fields of all directions' ``Problem``: a field is shared, or a list of what each of them has."""
        flat: list[int] = []
        for d, weights in enumerate(self.weights):
            flat += _fields(
                {
                    "steps": self.steps,
                    "batch": self.batch,
                    "hidden": self.hidden,
                    "projected": self.projected,
                    "reverse": int(self.reverse(d)),
                    "threads": threads(),
                    "halves": int(self.dtype == torch.bfloat16),
                    "gates_width": self.directions * len(self.cell.gates) * self.hidden,
                    "output_width": self.directions * self.projected,
                    "initial": _of(d, self.states),
                    "weight_hh": weights.hh,
                    "bias_hh": weights.bias_hh,
                    "weight_hr": weights.hr,
                    "unit": self.unit[d],
                    "lengths": self.lengths,
                    "reset": self.reset,
                    "reset_states": _of(d, self.reset_states),
                    **{name: value[d] if isinstance(value, list) else value for name, value in fields.items()},
                }
            )
        return flat

    def plain(self, tensor: Tensor) -> Tensor:
        return tensor if tensor.dtype == self.dtype and tensor.is_contiguous() else tensor.to(self.dtype).contiguous()

    def empty(self, *shape: int) -> Tensor:
        return pooled(shape, self.dtype)

    def empty_output(self) -> Tensor:
        return self.empty(self.steps, self.batch, self.directions * self.projected)

    def empty_states(self) -> list[Tensor]:
        return [torch.empty_like(state) for state in self.states]

    def working_like(self, tensor: Tensor) -> Tensor:
        return torch.empty_like(tensor, dtype=self.working)

    def each(self, tensor: Tensor) -> list[Tensor]:
        """The directions' parts of what lies side by side in the last axis."""
        return list(tensor.chunk(self.directions, -1)) if self.directions > 1 else [tensor]

    def stored(self, tensor: Tensor) -> Tensor:
        return tensor if tensor.dtype == self.storage else tensor.to(self.storage)

    def previous_hidden(self, output: Tensor, d: int) -> Tensor:
        """(T, B, P): the hidden state that each step's product read."""
        hidden, reverse = self.states[0][d : d + 1], self.reverse(d)
        before = self.empty(*output.shape)
        torch.cat([output[1:], hidden] if reverse else [hidden, output[:-1]], out=before)
        valid = None if self.lengths is None else valid_steps(self.lengths, self.steps)
        if valid is not None and reverse:
            # Rows begin at their length, after steps whose output is zero.
            before = torch.where(torch.cat([valid[1:], torch.zeros_like(valid[:1])]).unsqueeze(-1), before, hidden)
        if self.reset is not None:
            fresh = torch.zeros_like(hidden) if self.reset_states is None else self.reset_states[0][d]
            before = torch.where(boundaries(self.reset, valid, reverse).unsqueeze(-1), fresh, before)
        return before


def _of(direction: int, tensors: Sequence[Tensor] | None) -> list[Tensor] | None:
    return None if tensors is None else [tensor[direction] for tensor in tensors]


def _unit(weights: Weights) -> Tensor | None:
    return torch.cat(weights.unit) if len(weights.unit) > 1 else next(iter(weights.unit), None)


def forward(q: Recurrence, save: bool) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """As `seqcells.execute` has it. The input is projected inside the loop unless that is to be differentiated."""
    inside = q.input is not None and not save
    call = _Call(q, inside)
    output, final = call.empty_output(), call.empty_states()
    saved = _saved(q, pooled) if save else []
    if inside:
        x = {"input": call.plain(q.input), "features": q.input.shape[2]}
        x |= {"weight_ih": [w.ih for w in call.weights], "bias_ih": [w.bias_ih for w in call.weights]}
    else:
        gates_x = q.gates_x if q.input is None else linear(q.input, *q.input_weights)
        x = {"gates_x": call.each(call.plain(gates_x))}
    call.run(
        False,
        **x,
        output=call.each(output),
        final=_by_direction(final),
        saved=list(saved[0].unbind()) if saved else None,
        path=_paths(call, saved[1:]),
    )
    return call.stored(output), [call.stored(state) for state in final], saved


def backward(q: Recurrence, given: Backward) -> list[Tensor | None]:
    """As `seqcells.execute` has it."""
    call, wanted = _Call(q), given.wanted
    values, *path = given.saved
    output = call.plain(given.output)
    previous = [call.previous_hidden(part, d) for d, part in enumerate(call.each(output))]
    grad_gates_x = call.empty(*output.shape[:2], call.directions * len(call.cell.gates) * call.hidden)
    width = call.kernels.shared.count(-1) * call.hidden
    grad_product = [call.empty(call.steps, call.batch, width) for _ in q.weights]
    grad_states = [call.working_like(state) for state in call.states]
    grad_reset = None if q.reset_states is None else [call.working_like(state) for state in call.states]
    grads = [
        Weights(
            bias_ih=call.working_like(w.bias_ih) if want.bias_ih else None,
            bias_hh=call.working_like(w.bias_hh) if want.bias_hh else None,
            hr=None if w.hr is None else call.empty(call.steps, call.batch, call.projected),
            unit=() if unit is None else (call.working_like(unit),),
        )
        for w, want, unit in zip(q.weights, wanted.weights, call.unit, strict=True)
    ]
    call.run(
        True,
        output=call.each(output),
        saved=list(values.unbind()),
        path=_paths(call, path),
        previous_hidden=previous,
        grad_output=call.each(call.plain(given.grad_output)),
        grad_final=_by_direction([call.plain(g) for g in given.grad_final]),
        grad_gates_x=call.each(grad_gates_x),
        grad_product=grad_product,
        grad_projected=[g.hr for g in grads],
        grad_initial=_by_direction(grad_states),
        grad_reset=_by_direction(grad_reset),
        grad_unit=[next(iter(g.unit), None) for g in grads],
        grad_bias_ih=[g.bias_ih for g in grads],
        grad_bias_hh=[g.bias_hh for g in grads],
    )
    outside, grad_ih = call.stored(grad_gates_x), None
    if q.input is not None:
        both = wanted.input, any(want.ih for want in wanted.weights)
        outside, grad_ih = linear_gradients(outside, q.input, q.input_weights[0], both)
    flat = [outside, *grad_states]
    for d, (w, g, grad_x) in enumerate(zip(call.weights, grads, call.each(grad_gates_x), strict=True)):
        want = wanted.weights[d]
        if want.ih:
            g = g._replace(ih=grad_ih.chunk(call.directions)[d])
        if want.hh:
            g = g._replace(hh=_grad_hh(call, w, previous[d], grad_x, grad_product[d]))
        if w.hr is not None:
            g = g._replace(hr=gemm(g.hr.flatten(0, 1).T, call.plain(path[0][d].flatten(0, 1))))
        if w.unit:
            g = g._replace(unit=g.unit[0].split([len(rows) for rows in w.unit]))
        flat += q.used[d].matching(g)
    return [grad if grad is None else call.stored(grad) for grad in [*flat, *(grad_reset or ())]]


def _grad_hh(call: _Call, weights: Weights, previous: Tensor, grad_gates_x: Tensor, grad_product: Tensor) -> Tensor:
    """The gradient of weight_hh: one product over all steps for each run of gates that lie together."""
    columns, own = [], 0
    for gate in call.kernels.shared:
        columns.append((grad_product, own) if gate < 0 else (grad_gates_x, gate))
        own += gate < 0
    grad = torch.empty_like(weights.hh)
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


def saved_like(q: Recurrence) -> list[Tensor]:
    """As `seqcells.execute` has it: the values of all units (D, T, B, A·H), then the paths (D, T, B, H) that backward
    reads."""
    return _saved(q, lambda shape, dtype: q.outside.new_empty(shape, dtype=dtype))


def _saved(q: Recurrence, empty: Callable[[Sequence[int], torch.dtype], Tensor]) -> list[Tensor]:
    dtype = WORKING_DTYPE.get(q.outside.dtype, q.outside.dtype)
    row, directions, hidden = kernels(q.cell.name), len(q.weights), q.hidden
    steps, batch, _ = q.outside.shape
    counts = (row.saves, *[1] * sum(_has_path(row, q.weights[0])))
    return [empty((directions, steps, batch, k * hidden), dtype) for k in counts]


def _has_path(row: Kernels, weights: Weights) -> list[bool]:
    """For each state whether its values are kept: a hidden state that is the output needs no second copy."""
    return [weights.hr is not None, *map(bool, row.path[1:])]


def _paths(call: _Call, kept: Sequence[Tensor]) -> list[list[Tensor | None]]:
    """For each direction, each state's path or None."""
    rest = iter(kept)
    stacks = [next(rest, None) if has else None for has in _has_path(call.kernels, call.weights[0])]
    return [[None if stack is None else stack[d] for stack in stacks] for d in range(call.directions)]


def _by_direction(states: Sequence[Tensor] | None) -> list[list[Tensor]] | None:
    """(D, B, ·) of each state → of each direction its states."""
    # By unbind: to iterate over a tensor asks first whether somebody watches, which a short sequence feels.
    return None if states is None else [list(parts) for parts in zip(*(s.unbind() for s in states), strict=True)]


class Inference:
    """A stack's inference, prepared for all calls that differ only in where their tensors lie.

    The gates' parts from the input never exist as a whole: they are made for a few steps at a time, by the thread that
    uses them. Weights are read where they lie, so what is written to them between two calls counts in the second.

    Args:
        layers: one below the other, each from its input; of that and of states only shapes and dtypes count.
        versions: what is known of the weights while packed copies of them are kept. Default: none are kept
    """

    def __init__(self, layers: Sequence[Recurrence], versions: Any = None) -> None:
        self.versions, self.keeps = versions, versions is not None
        self._kept: list[Tensor] = []
        self._storage = layers[0].input.dtype
        self._made_for = self._circumstances(self._storage)
        runs, self.in_place = [], True
        states = len(layers[0].states)
        outputs = 1 + 2 * states
        weight = outputs + len(layers)  # of all arguments the next of these
        for k, q in enumerate(layers):
            fits.check(q)
            call = _Call(q, inside=True)
            self.in_place &= all(
                len(w.unit) < 2 and all(map(operator.is_, w.present(), own.present()))
                for w, own in zip(q.weights, call.weights, strict=True)
            )
            """Whether weights are read where the layers have them; otherwise they were converted, or laid out anew."""
            places, size = [], call.dtype.itemsize
            for d, w in enumerate(call.weights):
                named = [("input", outputs + k - 1 if k else 0, 0), ("output", outputs + k, d * call.projected * size)]
                for state, like in enumerate(call.states):
                    ahead = (k * call.directions + d) * like[0].numel() * size
                    named += [(("initial", state), 1 + state, ahead), (("final", state), 1 + states + state, ahead)]
                for name, tensor in zip(_WEIGHTS, (*w[:5], next(iter(w.unit), None)), strict=True):
                    if tensor is not None:
                        named.append((name, weight, 0))
                        weight += 1
                places += [(d * _COUNT + _place(name), which, ahead) for name, which, ahead in named]
            sizes = {"features": q.input.shape[2]}
            fields = call.flat(sizes)
            if self.keeps and self.in_place:
                whole = call.flat({**sizes, "weight_ih": [w.ih for w in call.weights]})
                for first in range(0, len(whole), _COUNT):
                    fields[first + _place("packed")] = self._pack(call, whole[first : first + _COUNT])
            runs.append((call.kernels.handle, fields, places))
        self._run = _engine.prepared(runs)

    def _pack(self, call: _Call, fields: list[int]) -> int:
        """The address of a direction's packed weights, which live as long as this does."""
        memory = pooled((-(-_engine.pack(call.kernels.handle, 0, *fields) // 4),), torch.float32)
        _engine.pack(call.kernels.handle, memory.data_ptr(), *fields)
        self._kept.append(memory)
        return memory.data_ptr()

    def __call__(self, *tensors: Tensor | None) -> None:
        """Read and write the input, initial states (None for zeros), final states, each layer's output, and the weights
        as they are `present` in each direction: contiguous, of the working dtype; no result may overlap with what is
        read, but a last output of one step with its final hidden state."""
        self._run(*tensors)

    @staticmethod
    def _circumstances(storage: torch.dtype) -> tuple[Any, ...]:
        return threads(), library.target, precision(storage)

    def holds(self) -> bool:
        """Whether it would be prepared alike now."""
        return self._made_for == self._circumstances(self._storage)
