"""A call as the kernels want it: the fields of ``Problem``, and the tensors that they are the addresses of.

States and sums are float32 or float64; float16 and bfloat16 are storage, bfloat16 also what is multiplied where the
machine has a unit for that.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...boundaries import boundaries, valid_steps
from ...precision import WORKING_DTYPE
from ...recurrence import Recurrence
from ...weights import Weights
from . import _engine
from .library import PRECISIONS, Kernels, kernels, pooled, precision, threads

MAX_STATES = 4
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
_PER_STATE = {"initial", "reset_states", "final", "path", "grad_final", "grad_initial", "grad_reset"}


_PLACES: dict[str, int] = {}
"""Where each field begins; those of one address a state are followed by room for the others."""
COUNT = 0
for _name in _FIELDS:
    _PLACES[_name] = COUNT
    COUNT += MAX_STATES if _name in _PER_STATE else 1


def place(name: str | tuple[str, int]) -> int:
    """Of a field, or of a state's."""
    return _PLACES[name] if isinstance(name, str) else _PLACES[name[0]] + name[1]


def _fields(given: dict[str, Any]) -> list[int]:
    """All fields of ``Problem``, in order; zero for those not given."""
    flat = [0] * COUNT
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


class EngineCall:
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
    return torch.cat(weights.own) if len(weights.own) > 1 else next(iter(weights.own), None)


def has_path(row: Kernels, weights: Weights) -> list[bool]:
    """For each state whether its values are kept: a hidden state that is the output needs no second copy."""
    return [weights.hr is not None, *map(bool, row.path[1:])]


def several_steps(q: Recurrence) -> bool:
    """Whether, to be differentiated, the input is best projected by a product of its own: of one step the loop's
    product reads the weights no more often, and the sums' order must not depend on who asks."""
    return q.outside.shape[0] > 1
