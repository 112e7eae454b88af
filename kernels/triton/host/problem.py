"""One layer, or a stack of them, its arguments in the form that the kernels take them."""

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
from .printed import of_one_stage
from .products import linear


@jit
def _projected(x, r, s, p):
    return x, ()


@jit
def _projected_backward(saved, s, n, p, d):
    return d, (), (tl.zeros_like(d[0]),), ()


# What a projected hidden state needs of the kernels: a cell that takes its input for its state. What it reads is
# the product with weight_hr, so its gradient dx is that product's.
PROJECTION = Kernels(_projected, _projected_backward, (), (), (False,), (False,))
PROJECTION_COUNTS = {"gates": 1, "recurrent": 0, "rows_of_parameters": 0, "kept": (-1,)}


class Saved(NamedTuple):
    """What forward keeps for backward, each (count, T, B, D·H), of count 0 where there is no such thing."""

    values: Tensor
    """The cell's own; none of them where backward is to compute them once more."""
    after: Tensor
    """States after each step: those but the hidden one that backward reads."""
    raw: Tensor
    """The hidden state before it is projected."""


def some(stack: Tensor) -> Tensor | None:
    """None in place of an empty stack of `Saved`."""
    return stack if len(stack) else None


class Layer:
    """A `Recurrence` for the kernels; sizes T, B, D, H as `steps`, `batch`, `directions`, `hidden`.

    P, `width`, is the size of the hidden state that is carried: the projected one's, or H. In a sequence the directions
    lie side by side in the last axis, so that both are of one time; but they are at one step at two times. In the place
    of directions a stack has its layers; only of what comes from outside it has but the lowest one's.
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
    projected: bool
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
        self.hidden, self.projected = q.hidden, q.weights[0].hr is not None
        self.work = WORKING_DTYPE.get(self.dtype, self.dtype)
        # For each direction whether it goes from the last step to the first.
        self.backwards = [q.reversed(d) for d in range(self.directions)]

    @property
    def times(self) -> list[range]:
        """For each direction the times in its order of travel. Not of a graph's steps: a range fixes their number."""
        return [range(self.steps)[:: -1 if backwards else 1] for backwards in self.backwards]

    def span(self, direction: int, first: int, stop: int) -> slice:
        """The times of steps ``first`` to ``stop``."""
        return slice(self.steps - stop, self.steps - first) if self.backwards[direction] else slice(first, stop)

    @property
    def bounded(self) -> bool:
        """Whether a step may read another state than the one that the step before it gave."""
        return self.lengths is not None or self.reset is not None

    def empty(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Uninitialised memory, in the storage dtype unless told."""
        return self.outside.new_empty(shape, dtype=dtype)

    @cached_property
    def input_weights(self) -> tuple[Tensor, Tensor | None]:
        """Of the input: (D·G·H, features), (D·G·H,). Of two directions copies, which not every call needs."""
        return self.recurrence.input_weights

    def gates_x(self) -> Tensor:
        """(T, B, D·G·H): the input projected."""
        return (self.outside if self.input is None else linear(self.input, *self.input_weights)).contiguous()

    def single(self, both: Tensor) -> Tensor:
        """(D, …) as a product takes it: without the axis where there is one direction."""
        return both[0] if self.directions == 1 else both

    def parts(self, sequence: Tensor) -> tuple[Tensor, ...]:
        """(T, B, D·K) → D views (T, B, K)."""
        return sequence.chunk(self.directions, -1) if self.directions > 1 else (sequence,)

    def at_steps(self, sequence: Tensor) -> list[tuple[Tensor, ...]]:
        """(T, B, D·K) → for each step, in the order of travel, D views (B, K)."""
        parts = zip(self.parts(sequence), self.backwards, strict=True)
        return list(zip(*(part.unbind()[:: -1 if backwards else 1] for part, backwards in parts), strict=True))

    def stacked(self, states: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
        """(S, D, B, H) of states; in the place of a projected hidden one, nothing."""
        stack = self.empty(len(states), self.directions, self.batch, self.hidden, dtype=dtype)
        for k, state in enumerate(states):
            if k or not self.projected:
                stack[k].copy_(state)
        return stack

    def each(self, states: Sequence[Tensor] | None) -> tuple[Tensor, ...] | None:
        """Each state (D, B, H) by itself; in the place of a projected hidden one, nothing."""
        if states is None or not self.projected:
            return states and tuple(states)
        return self.empty(*states[-1].shape), *states[1:]

    def fresh(self) -> list[Tensor] | None:
        """What the states become at a boundary."""
        if self.reset is None:
            return None
        given = self.reset_states or [torch.zeros_like(state) for state in self.states]
        return [state.contiguous() for state in given]  # kernels go by addresses

    def boundaries(self, direction: int) -> Tensor:
        """(T, B, 1): whether the states are reset just before a step, in the direction of travel."""
        valid = None if self.lengths is None else valid_steps(self.lengths, self.steps)
        return boundaries(self.reset, valid, self.backwards[direction]).unsqueeze(-1)

    def boundary_at_first(self) -> Tensor:
        """(D, B, 1): whether the states are reset before the first step, in the order of travel."""
        return torch.stack([self.boundaries(d)[times[0]] for d, times in enumerate(self.times)])

    def first_hidden(self) -> Tensor:
        """(D, B, P): what the first step reads."""
        if self.reset is None:
            return self.states[0]
        return torch.where(self.boundary_at_first(), self.fresh()[0], self.states[0])

    def hidden_before(
        self, output: Tensor, first: int = 0, stop: int | None = None, out: Tensor | None = None
    ) -> Tensor:
        """(stop - first, B, D·P): the hidden state that each of some steps reads where it is valid; of each direction
        its own steps, in the order of time."""
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
                # Padding comes first, and the output is 0 there, not the state.
                moments = torch.arange(times.start, times.stop, device=self.device)
                last = (moments.unsqueeze(1) == self.lengths - 1).unsqueeze(-1)
                torch.where(last, initial.to(own.dtype), own, out=own)
            if self.reset is not None:
                torch.where(self.boundaries(d)[times], self.fresh()[0][d].to(own.dtype), own, out=own)
        return before


class Problem(Layer):
    """A `Layer` of a cell of one stage, whose kernels are in `cells`."""

    def __init__(self, q: Recurrence) -> None:
        super().__init__(q)
        self.kernels = CELLS[of_one_stage(q.cell)]
        # Of all directions: (D, R·H, P), (D, R·H), (D, rows, H).
        self.hh = stacked([w.hh for w in q.weights])
        self.bias = stacked([w.bias_hh for w in q.weights])
        self.parameters = stacked([torch.cat(list(w.own)) if w.own else None for w in q.weights])
        # Of all layers of a stack but the lowest: (L - 1, G·H, H), (L - 1, G·H).
        self.ih = stacked([w.ih for w in self.weights[1:]]) if q.stacked else None
        self.bias_ih = stacked([w.bias_ih for w in self.weights[1:]]) if q.stacked else None
        # Whether dr, the gradients of the recurrent product's results, are dx, and so need not be written.
        self.shared = self.kernels.shared == tuple(range(self.gates))

    def kept(self, everything: bool) -> tuple[int, ...]:
        """For each state its place in `Saved.after`, or -1; ``everything``: not only what the gradients mention."""
        read = [a or b or everything for a, b in zip(self.kernels.previous, self.kernels.next, strict=True)]
        return tuple(sum(read[1:k]) if k and needed else -1 for k, needed in enumerate(read))

    def saved(self, recompute: bool) -> Saved:
        """Memory for what forward keeps."""
        counts = 0 if recompute else len(self.kernels.saved), max(self.kept(recompute)) + 1, int(self.projected)
        width = self.directions * self.hidden
        return Saved(*(self.empty(count, self.steps, self.batch, width) for count in counts))

    def previous(self, recompute: bool) -> tuple[bool, ...]:
        """Which of the states before a step backward reads."""
        if not recompute:
            return self.kernels.previous
        return not self.cell.projection, *(True for _ in self.states[1:])

    def counts(self, recompute: bool) -> dict[str, Any]:
        """How many tiles the cell takes of each kind."""
        rows = 0 if self.parameters is None else self.parameters.shape[1]
        kept = self.kept(recompute)
        return {"gates": self.gates, "recurrent": self.recurrent, "rows_of_parameters": rows, "kept": kept}


def stacked(tensors: Sequence[Tensor | None]) -> Tensor | None:
    """Those of all directions; of one it is no copy."""
    if tensors[0] is None:
        return None
    return tensors[0].contiguous().unsqueeze(0) if len(tensors) == 1 else torch.stack(list(tensors))
