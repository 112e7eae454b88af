"""Calls of a stack of layers that differ only in where their tensors lie, prepared once: of layers that the persistent
plan runs, one after the other. A later call makes its products and launches, and takes one piece of memory for each of
its results, for what backward needs, and for what programs meet by."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from ... import fits
from ...call import Call
from ...recurrence import Recurrence
from ...settings import current_settings
from ...weights import Weights
from . import precision, sequence, wavefront
from .gradients import of_weights
from .launch import Part, Repeated
from .persistent import Meeting, division_of, launches
from .plan import Shape, plan
from .problem import Problem

Makers = Sequence[Callable[[], Tensor] | None]

PLANS = ("single launch", "persistent")
"""Those whose calls are prepared."""


def maker(like: Tensor) -> Callable[[], Tensor]:
    """What makes uninitialised tensors like one."""
    return partial(torch.empty, like.shape, dtype=like.dtype, device=like.device)


def output_maker(like: Tensor) -> Callable[[], Tensor]:
    """The same for a layer's output (T, B, ·) in training, with room for a step before its first and one after its
    last: see `sequence.forward`."""
    steps, batch, width = like.shape
    whole, step = (steps + 2, batch, width), batch * width

    def make() -> Tensor:
        tensor = torch.empty(whole, dtype=like.dtype, device=like.device)
        # Not viewed: of a view autograd forbids much that is allowed for a tensor of its own.
        return tensor.set_(tensor.untyped_storage(), step, like.shape, (step, width, 1))

    return make


class _Pass:
    """A pass of one layer: its launches, and the memory by which programs meet in it."""

    def __init__(
        self, kernel: Any, q: Problem, sums: tuple[int, int], varying: Mapping[str, Any], fixed: Mapping[str, Any]
    ) -> None:
        division = division_of(Shape.of(q.recurrence), *sums)
        self._dtype, self._device = q.dtype, q.device
        self._meeting = meeting = Meeting.of(division, q.batch, q.directions, q.dtype, False)
        dtypes = dict(varying)
        if meeting.room:
            dtypes |= {"arrived": torch.int32, "ring": q.dtype}
        common = {"steps": q.steps, "batch": q.batch, "size": q.hidden, "directions": q.directions, "reverse": 0}
        self._launches = [
            Repeated(kernel, grid, dtypes, start=start, stop=stop, **common, **more, **fixed, **q.counts(False))
            for grid, start, stop, more in launches(division, meeting, q.batch, q.directions, q.dtype)
        ]

    def __call__(self, tensors: dict[str, Any]) -> None:
        if self._meeting.room:
            room = torch.zeros(self._meeting.room, dtype=torch.int32, device=self._device)
            at = self._meeting.counters * room.itemsize // self._dtype.itemsize
            tensors |= {"arrived": room, "ring": Part(room, at, self._dtype)}
        for launch in self._launches:
            launch(tensors)


class _Layer:
    """A layer of a stack, and where its weights are among those of all.

    Args:
        q: the layer; of all tensors only shapes, dtypes and the device count.
        place: its number in the stack.
        weights: where its weights begin.
        kept: where what it keeps for backward begins, in the block of all; None where nothing is kept.
        has_states: whether there are initial states; else they are zeros.
        wanted: whether the gradients of initial states are.
    """

    def __init__(
        self, q: Recurrence, place: int, weights: int, kept: int | None, has_states: bool, wanted: bool
    ) -> None:
        self.problem = problem = Problem(q)
        self.end = weights
        self._weights: list[tuple[Weights, slice]] = []
        for w in q.weights:
            own = slice(self.end, self.end + len(w.present()))
            self._weights.append((w, own))
            self.end = own.stop
        self._ahead = place * problem.directions * problem.batch * problem.hidden  # in states of all layers
        self.size = problem.steps, problem.batch, problem.directions * problem.hidden  # of its output
        counts = {"saved": len(problem.kernels.saved), "after": max(problem.kept(False)) + 1}
        self._kept: dict[str, int] = {}
        self.kept_end = kept
        for name, count in counts.items() if kept is not None else ():
            if count:
                self._kept[name] = self.kept_end
                self.kept_end += count * math.prod(self.size)
        states = (problem.dtype,) * len(problem.states)
        self._given = {"weight": problem.dtype, **dict.fromkeys(self._kept, problem.dtype)}
        forward = {"x": problem.dtype, "output": problem.dtype, "final": states, **self._given}
        if problem.bias is not None:
            forward["bias"] = problem.dtype
        if has_states:
            forward["initial"] = states
        fixed = {"cell": problem.kernels.forward, "led": kept is not None}
        self._forward = _Pass(sequence.forward, problem, (1, 1), forward, fixed)
        if kept is not None:
            self._backward = self._backward_pass(has_states, wanted)

    def _backward_pass(self, has_states: bool, wanted: bool) -> _Pass:
        q = self.problem
        states = (q.dtype,) * len(q.states)
        given = {"result": q.dtype, "grad_output": q.dtype, "grad_final": states, "grad_x": q.dtype, **self._given}
        given |= {"first": states} if has_states else {}
        given |= {"grad_initial": states} if wanted else {}
        given |= {} if q.shared else {"grad_r": q.dtype}
        fixed = {"cell": q.kernels.backward, "values": len(q.kernels.saved), "begin": 0, "end": q.steps}
        fixed |= {"previous": q.kernels.previous, "next": q.kernels.next, "shared": q.shared}
        return _Pass(sequence.backward, q, (q.recurrent, q.gates), given, fixed)

    def forward(
        self,
        input: Tensor,
        initial: Sequence[Tensor] | None,
        final: Sequence[Tensor],
        output: Tensor,
        kept: Tensor | None,
        weights: Sequence[Tensor],
    ) -> None:
        """Arguments are those of the whole stack but for input and output."""
        own = self._own(weights)
        x = linear(input, _side_by_side([w.ih for w in own]), _side_by_side([w.bias_ih for w in own]))
        tensors = {
            "x": x,
            "weight": _side_by_side([w.hh for w in own]),
            "bias": _side_by_side([w.bias_hh for w in own]),
        }
        tensors |= {"initial": self._states(initial), "output": output, "final": self._states(final)}
        self._forward(tensors | self._saved(kept))

    def backward(
        self,
        input: Tensor,
        initial: Sequence[Tensor] | None,
        output: Tensor,
        led: bool,
        kept: Tensor,
        grad_output: Tensor,
        grad_final: Sequence[Tensor],
        grad_initial: Sequence[Tensor] | None,
        weights: Sequence[Tensor],
        wanted: Recurrence,
    ) -> tuple[Tensor | None, list[Tensor | None]]:
        """The gradients of the input and of the weights, those that are wanted; arguments likewise.

        Args:
            led: whether the output lies where `output_maker` made it.
        """
        q, own = self.problem, self._own(weights)
        grad_x = q.outside.new_empty((q.steps, q.batch, q.directions * q.gates * q.hidden))
        grad_r = grad_x if q.shared else q.outside.new_empty((q.steps, q.batch, q.directions * q.recurrent * q.hidden))
        tensors = {"weight": _side_by_side([w.hh for w in own]), "first": self._states(initial), "result": output}
        tensors |= {"grad_output": grad_output, "grad_final": self._states(grad_final), "grad_x": grad_x}
        tensors |= {"grad_r": grad_r, "grad_initial": self._states(grad_initial), **self._saved(kept)}
        self._backward(tensors)
        flat: list[Tensor | None] = []
        for d, (w, want, x, r) in enumerate(zip(own, wanted.weights, q.parts(grad_x), q.parts(grad_r), strict=True)):
            read = self._read(output, led, initial, d) if want.hh else None
            flat += w.matching(of_weights(q, want, x, r, input, read))
        of_input = torch.matmul(grad_x, _side_by_side([w.ih for w in own])) if wanted.input else None
        return of_input, flat

    def _own(self, weights: Sequence[Tensor]) -> list[Weights]:
        return [like.replaced(weights[place]) for like, place in self._weights]

    def _states(self, states: Sequence[Tensor] | None) -> tuple[Any, ...] | None:
        """Of states of all layers this one's."""
        if states is None or not self._ahead:
            return states and tuple(states)
        return tuple(Part(state, self._ahead, state.dtype) for state in states)

    def _saved(self, kept: Tensor | None) -> dict[str, Part]:
        return {name: Part(kept, first, kept.dtype) for name, first in self._kept.items()}

    def _read(self, output: Tensor, led: bool, initial: Sequence[Tensor] | None, d: int) -> Tensor:
        """(T, B, H): what the recurrent product of each step read, in one direction."""
        q = self.problem
        size, strides = (q.steps, q.batch, q.hidden), output.stride()
        if led:
            ahead = output.storage_offset() + (strides[0] if d else -strides[0]) + d * q.hidden
            return output.as_strided(size, strides, ahead)
        part = q.parts(output)[d]
        if initial is None:
            begin = torch.zeros_like(part[:1])
        else:
            begin = initial[0].view(-1, q.batch, q.hidden)[self._ahead // (q.batch * q.hidden) + d].unsqueeze(0)
        return torch.cat([part[1:], begin] if d else [begin, part[:-1]])


class _Prepared:
    """What inference and training have in common.

    Args:
        layers: one below the other, each from its input, without lengths, resets and projections; of all tensors only
            shapes, dtypes and the device count.
        turned: whether the input lies as (B, T, features).
        zeros: whether there are no initial states.
        wanted: the same layers, with a bool in the place of each tensor: whether its gradient is wanted. Default: none
            is
    """

    def __init__(
        self, layers: Sequence[Recurrence], turned: bool, zeros: bool, wanted: Sequence[Recurrence] | None = None
    ) -> None:
        for q in layers:
            fits.check(q)
        self._input_like, self._turned = layers[0].input, turned
        self._states, self._mode = len(layers[0].states), precision.mode(layers[0].input.dtype)
        self.in_place = not _are_at_once(layers, wanted is not None)
        self.in_place &= all(_why_not(q, wanted is not None) is None for q in layers)
        self._zeros, self._layers = zeros, []
        weights, kept = 0, None if wanted is None else 0
        for k, q in enumerate(layers if self.in_place else ()):
            layer = _Layer(q, k, weights, kept, not zeros, wanted is not None and any(wanted[k].states))
            weights, kept = layer.end, layer.kept_end
            self._layers.append(layer)
        self._kept = kept

    def holds(self) -> bool:
        """Whether it would be prepared alike now."""
        return self._mode == precision.mode(self._input_like.dtype)

    @contextmanager
    def _circumstances(self) -> Iterator[None]:
        """Inside, torch's products are as the kernels', and all is done on the input's device."""
        with precision.obeyed_by_torch(self._mode), torch.cuda.device_of(self._input_like):
            yield

    def _steps_first(self, input: Tensor) -> Tensor:
        return input.transpose(0, 1).contiguous() if self._turned else input


class Inference(_Prepared):
    """A stack's inference, prepared for all calls that differ only in where their tensors lie. No weights are kept."""

    keeps, versions = False, None

    def __init__(self, layers: Sequence[Recurrence], versions: Any, turned: bool, zeros: bool) -> None:
        super().__init__(layers, turned, zeros)

    def __call__(self, *tensors: Tensor | None) -> None:
        """Read and write the input, initial states (None for zeros), final states, each layer's output, and the weights
        as they are `present` in each direction, all contiguous."""
        input, *rest = tensors
        initial, final, rest = rest[: self._states], rest[self._states : 2 * self._states], rest[2 * self._states :]
        outputs, weights = rest[: len(self._layers)], rest[len(self._layers) :]
        with self._circumstances():
            x = self._steps_first(input)
            for layer, output in zip(self._layers, outputs, strict=True):
                layer.forward(x, None if self._zeros else initial, final, output, None, weights)
                x = output


class Training(_Prepared):
    """A stack's forward and backward, prepared likewise.

    Args:
        reads_output: whether backward may read the output, as the kernels do.
    """

    def __init__(
        self,
        layers: Sequence[Recurrence],
        wanted: Sequence[Recurrence],
        turned: bool,
        zeros: bool,
        reads_output: bool,
    ) -> None:
        super().__init__(layers, turned, zeros, wanted)
        self.in_place &= reads_output
        self._wanted = wanted
        # All outputs but the highest are kept too, each with room around it.
        self._below = []
        for layer in self._layers[:-1]:
            steps, *of_a_step = layer.size
            self._below.append((layer.size, (math.prod(of_a_step), of_a_step[1], 1), self._kept + math.prod(of_a_step)))
            self._kept += (steps + 2) * math.prod(of_a_step)

    def forward(self, *tensors: Tensor | None) -> Tensor:
        """Read the input, initial states (None for zeros); write final states and the output, which `output_maker` has
        made; read the weights as they are `present`. Returns what backward needs besides."""
        input, *rest = tensors
        initial, final, rest = rest[: self._states], rest[self._states : 2 * self._states], rest[2 * self._states :]
        output, *weights = rest
        with self._circumstances():
            kept = input.new_empty(self._kept)
            x = self._steps_first(input)
            for layer, each in zip(self._layers, [*self._outputs(kept), output], strict=True):
                layer.forward(x, None if self._zeros else initial, final, each, kept, weights)
                x = each
        return kept

    def backward(self, tensors: Sequence[Tensor | None], makers: Makers, as_made: bool) -> list[Tensor | None]:
        """Read the input, initial states, the output, what forward returned, the gradients of output and final states,
        and the weights. Returns the gradients of the input, of initial states, and of weights, those that are wanted.

        Args:
            makers: make those of initial states that are wanted.
            as_made: whether the output lies where `output_maker` made it.
        """
        count = self._states
        input, *rest = tensors
        initial, (output, kept, grad_output), rest = rest[:count], rest[count : count + 3], rest[count + 3 :]
        grad_final, weights = rest[:count], rest[count:]
        grad_initial = [make() for make in makers[1 : 1 + count]] if makers[1] else None
        of_weights: list[Tensor | None] = []
        with self._circumstances():
            inputs = [self._steps_first(input), *self._outputs(kept)]
            outputs = [*inputs[1:], output]
            for k in reversed(range(len(self._layers))):
                grad_output, own = self._layers[k].backward(
                    inputs[k],
                    None if self._zeros else initial,
                    outputs[k],
                    as_made or k + 1 < len(self._layers),
                    kept,
                    grad_output,
                    grad_final,
                    grad_initial,
                    weights,
                    self._wanted[k] if k == 0 else self._wanted[k]._replace(input=True),
                )
                of_weights = own + of_weights
        if self._turned and grad_output is not None:
            grad_output = grad_output.transpose(0, 1)
        return [grad_output, *(grad_initial or [None] * count), *of_weights]

    def _outputs(self, kept: Tensor) -> list[Tensor]:
        """Those that are kept."""
        return [kept.as_strided(*place) for place in self._below]


def _side_by_side(tensors: Sequence[Tensor | None]) -> Tensor | None:
    """Those of all directions, one below the other; of one it is no copy."""
    return tensors[0] if len(tensors) == 1 or tensors[0] is None else torch.cat(list(tensors))


def _are_at_once(layers: Sequence[Recurrence], gradients: bool) -> bool:
    """Whether several layers run at once."""
    first = layers[0]
    sizes = dict(zip(("steps", "rows"), first.input.shape, strict=False))
    sizes |= {"directions": len(first.weights), "hidden": first.hidden, "width": first.hidden, "layers": len(layers)}
    call = Call(first.cell, "layers", first.input.device, first.input.dtype, **sizes)
    return wavefront.at_once(call, gradients) > 1


def _why_not(q: Recurrence, trains: bool) -> str | None:
    """Why a layer's calls are not prepared, or None."""
    shape = Shape.of(q)
    if q.cell.parameters or not shape.recurrent:
        return "its cell has parameters of each unit, or no recurrent product"
    if current_settings().recompute or torch.version.hip:
        return "backward computes values once more, or addresses are of two kinds"
    if plan(shape).name not in PLANS:
        return "its steps are launched one by one"
    if trains and isinstance(division_of(shape, shape.recurrent, len(q.cell.gates)), str):
        return "the persistent plan has no backward for it"
    return None
