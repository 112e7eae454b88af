"""One layer, or a stack of layers, with its arguments in the form that the kernels take."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import torch
import triton.language as tl
from torch import Tensor
from triton import jit

from ....cells import Cell
from ....request.boundaries import boundaries, valid_steps
from ....request.precision import WORKING_DTYPE
from ....request.recurrence import Recurrence
from ....request.weights import Weights
from ..device.cells import CELLS, Kernels
from .gemm import linear
from .printed_kernels import of_one_stage


@jit
def _projected(x, r, s, p):
    return x, ()


@jit
def _projected_backward(saved, s, n, p, d):
    return d, (), (tl.zeros_like(d[0]),), ()


# For the kernels, a projected hidden state is the state of a cell that takes its input for its new state. Its input is
# the product with weight_hr, so the gradient dx is the product's gradient.
PROJECTION = Kernels(_projected, _projected_backward, (), (), (False,), (False,))
PROJECTION_COUNTS = {"gates": 1, "recurrent": 0, "rows_of_parameters": 0, "kept": (-1,)}


class Saved(NamedTuple):
    """What forward keeps for backward: each tensor is (count, T, B, D·H), and count is 0 where there is nothing to
    keep."""

    values: Tensor
    """The cell's saved values; none where backward recomputes them."""
    after: Tensor
    """The states after each step that backward reads, except the hidden state."""
    raw: Tensor
    """The hidden state before it is projected."""


def some(stack: Tensor) -> Tensor | None:
    """A stack of `Saved`, or None if it is empty."""
    return stack if len(stack) else None


class Layer:
    """A `Recurrence` for the kernels; sizes T, B, D, H as `steps`, `batch`, `directions`, `hidden`.

    P, `width`, is the size of the carried hidden state: the projected size, or H. In a sequence the directions lie side
    by side in the last axis, so that an index of T is the same time for both. At the same step, though, the two
    directions are at different times. A stack has its layers in the place of directions. Tensors that come from outside
    the stack have the lowest layer's part only.
    """

    recurrence: Recurrence
    cell: type[Cell]
    states: list[Tensor]
    weights: list[Weights]
    is_stack: bool
    lengths: Tensor | None
    reset: Tensor | None
    reset_states: Sequence[Tensor] | None
    reverse: bool
    input: Tensor | None
    outside: Tensor
    device: torch.device
    dtype: torch.dtype
    steps: int
    batch: int
    directions: int
    width: int
    gates: int
    recurrent: int
    hidden: int
    has_projection: bool
    work: torch.dtype
    backwards: list[bool]

    def __init__(self, q: Recurrence) -> None:
        self.recurrence, self.cell = q, q.cell
        self.states = [state.contiguous() for state in q.states]
        self.weights, self.is_stack = q.used, q.stacked
        self.lengths = None if q.lengths is None else q.lengths.contiguous()
        self.reset = None if q.reset is None else q.reset.contiguous()
        self.reset_states, self.reverse = q.reset_states, q.reverse

        self.input, self.outside = q.input, q.outside
        self.device, self.dtype = q.outside.device, q.outside.dtype
        self.steps, self.batch, _ = q.outside.shape
        self.directions, _, self.width = q.states[0].shape
        self.gates, self.recurrent = len(q.cell.gates), len(q.cell.recurrent_gates)
        self.hidden, self.has_projection = q.hidden, q.weights[0].hr is not None
        self.work = WORKING_DTYPE.get(self.dtype, self.dtype)
        # For each direction: whether it goes from the last time to the first.
        self.backwards = [q.reversed(d) for d in range(self.directions)]

    @property
    def times(self) -> list[range]:
        """For each direction the times in its order of travel. Not for a graph whose number of steps is symbolic: a
        range fixes the number."""
        return [range(self.steps)[:: -1 if backwards else 1] for backwards in self.backwards]

    def span(self, direction: int, first: int, stop: int) -> slice:
        """The times of steps ``first`` to ``stop``."""
        return slice(self.steps - stop, self.steps - first) if self.backwards[direction] else slice(first, stop)

    @property
    def bounded(self) -> bool:
        """Whether a step may read a state other than the one that the step before it gave."""
        return self.lengths is not None or self.reset is not None

    def empty(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Uninitialised memory, in the storage dtype unless ``dtype`` is given."""
        return self.outside.new_empty(shape, dtype=dtype)

    @cached_property
    def input_weights(self) -> tuple[Tensor, Tensor | None]:
        """The weight (D·G·H, features) and bias (D·G·H,) of the input's projection. With two directions they are
        copies, which not every call needs."""
        return self.recurrence.input_weights

    def gates_x(self) -> Tensor:
        """The projected input (T, B, D·G·H)."""
        return (self.outside if self.input is None else linear(self.input, *self.input_weights)).contiguous()

    def single(self, both: Tensor) -> Tensor:
        """A tensor (D, …) as a product takes it: without the first axis if there is one direction."""
        return both[0] if self.directions == 1 else both

    def parts(self, sequence: Tensor) -> tuple[Tensor, ...]:
        """(T, B, D·K) → D views (T, B, K)."""
        return sequence.chunk(self.directions, -1) if self.directions > 1 else (sequence,)

    def at_steps(self, sequence: Tensor) -> list[tuple[Tensor, ...]]:
        """(T, B, D·K) → for each step, in the order of travel, D views (B, K)."""
        parts = zip(self.parts(sequence), self.backwards, strict=True)
        return list(zip(*(part.unbind()[:: -1 if backwards else 1] for part, backwards in parts), strict=True))

    def stacked(self, states: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
        """The states as one tensor (S, D, B, H). The place of a projected hidden state is left uninitialised."""
        stack = self.empty(len(states), self.directions, self.batch, self.hidden, dtype=dtype)
        for k, state in enumerate(states):
            if k or not self.has_projection:
                stack[k].copy_(state)
        return stack

    def each(self, states: Sequence[Tensor] | None) -> tuple[Tensor, ...] | None:
        """The states as a tensor (D, B, H) each. The tensor for a projected hidden state is left uninitialised."""
        if states is None or not self.has_projection:
            return states and tuple(states)
        return self.empty(*states[-1].shape), *states[1:]

    def reset_states_or_zeros(self) -> list[Tensor] | None:
        """The states that a boundary sets, or None without resets."""
        if self.reset is None:
            return None
        given = self.reset_states or [torch.zeros_like(state) for state in self.states]
        return [state.contiguous() for state in given]  # kernels compute addresses from shapes alone

    def boundaries(self, direction: int) -> Tensor:
        """(T, B, 1): whether the states are reset just before a step, in the direction of travel."""
        valid = None if self.lengths is None else valid_steps(self.lengths, self.steps)
        return boundaries(self.reset, valid, self.backwards[direction]).unsqueeze(-1)

    def boundary_at_first(self) -> Tensor:
        """(D, B, 1): whether the states are reset before the first step, in the order of travel."""
        return torch.stack([self.boundaries(d)[times[0]] for d, times in enumerate(self.times)])

    def first_hidden(self) -> Tensor:
        """(D, B, P): the hidden state that the first step reads."""
        if self.reset is None:
            return self.states[0]
        return torch.where(self.boundary_at_first(), self.reset_states_or_zeros()[0], self.states[0])

    def hidden_before(
        self, output: Tensor, first: int = 0, stop: int | None = None, out: Tensor | None = None
    ) -> Tensor:
        """(stop - first, B, D·P): the hidden state that each of these steps reads, where the step is valid. Each
        direction has its own steps, in the order of time."""
        stop = self.steps if stop is None else stop
        before = self.empty(stop - first, *output.shape[1:]) if out is None else out
        for d, (after, own) in enumerate(zip(self.parts(output), self.parts(before), strict=True)):
            initial, times = self.states[0][d], self.span(d, first, stop)
            if self.backwards[d]:
                own[:-1] = after[times][1:]
                own[-1] = after[times.stop] if first else initial
            else:
                own[1:] = after[times][:-1]
                own[0] = after[times.start - 1] if first else initial
            if self.lengths is not None and self.backwards[d]:
                # Backwards, the padding comes first. The output there is 0, and not the initial state.
                moments = torch.arange(times.start, times.stop, device=self.device)
                last = (moments.unsqueeze(1) == self.lengths - 1).unsqueeze(-1)
                torch.where(last, initial.to(own.dtype), own, out=own)
            if self.reset is not None:
                torch.where(self.boundaries(d)[times], self.reset_states_or_zeros()[0][d].to(own.dtype), own, out=own)
        return before


class Problem(Layer):
    """A `Layer` whose cell has one stage, with its kernels from `cells`."""

    def __init__(self, q: Recurrence) -> None:
        super().__init__(q)
        self.kernels = CELLS[of_one_stage(q.cell)]
        # All directions stacked: (D, R·H, P), (D, R·H), (D, rows, H).
        self.hh = stacked([w.hh for w in q.weights])
        self.bias = stacked([w.bias_hh for w in q.weights])
        self.parameters = stacked([torch.cat(list(w.own)) if w.own else None for w in q.weights])
        # All layers of a stack but the lowest: (L - 1, G·H, H), (L - 1, G·H).
        self.ih = stacked([w.ih for w in self.weights[1:]]) if q.stacked else None
        self.bias_ih = stacked([w.bias_ih for w in self.weights[1:]]) if q.stacked else None
        # Whether dr, the gradients of the recurrent product's results, equal dx, so that they need not be written.
        self.dr_is_dx = self.kernels.same_dx == tuple(range(self.gates))

    def kept(self, everything: bool) -> tuple[int, ...]:
        """For each state its index in `Saved.after`, or -1. ``everything``: also for states that the gradients do not
        mention."""
        read = [a or b or everything for a, b in zip(self.kernels.previous, self.kernels.next, strict=True)]
        return tuple(sum(read[1:k]) if k and needed else -1 for k, needed in enumerate(read))

    def saved(self, recompute: bool) -> Saved:
        """Memory for what forward keeps."""
        counts = 0 if recompute else len(self.kernels.saved), max(self.kept(recompute)) + 1, int(self.has_projection)
        width = self.directions * self.hidden
        return Saved(*(self.empty(count, self.steps, self.batch, width) for count in counts))

    def previous(self, recompute: bool) -> tuple[bool, ...]:
        """Flags the states before a step that backward reads."""
        if not recompute:
            return self.kernels.previous
        return not self.cell.projection, *(True for _ in self.states[1:])

    def counts(self, recompute: bool) -> dict[str, Any]:
        """How many tiles of each kind the cell takes."""
        rows = 0 if self.parameters is None else self.parameters.shape[1]
        kept = self.kept(recompute)
        return {"gates": self.gates, "recurrent": self.recurrent, "rows_of_parameters": rows, "kept": kept}


def stacked(tensors: Sequence[Tensor | None]) -> Tensor | None:
    """The tensors of all directions in one. A single contiguous tensor is not copied."""
    if tensors[0] is None:
        return None
    return tensors[0].contiguous().unsqueeze(0) if len(tensors) == 1 else torch.stack(list(tensors))
