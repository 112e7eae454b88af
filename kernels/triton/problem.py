"""One layer in one direction, its arguments in the form that the kernels take them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import triton.language as tl
from torch import Tensor
from triton import jit

from ...boundaries import boundaries, valid_steps
from ...cells import Cell
from ...precision import WORKING_DTYPE
from ...weights import Weights
from .cells import CELLS, Kernels


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
    """What forward keeps for backward, each (count, T, B, H), of count 0 where there is no such thing."""

    values: Tensor
    """The cell's own; none of them where backward is to compute them once more."""
    after: Tensor
    """States after each step: those but the hidden one that backward reads."""
    raw: Tensor
    """The hidden state before it is projected."""


class Problem:
    """Arguments as `seqcells.ops` hands them to an engine; ``sizes`` T, B, H as `steps`, `batch`, `hidden`.

    P, `width`, is the size of the hidden state that is carried: the projected one's, or H.
    """

    def __init__(
        self,
        cell: type[Cell],
        gates_x: Tensor,
        states: Sequence[Tensor],
        weights: Weights,
        lengths: Tensor | None = None,
        reset: Tensor | None = None,
        reset_states: Sequence[Tensor] | None = None,
        reverse: bool = False,
    ) -> None:
        self.cell, self.kernels = cell, CELLS[cell.name]
        self.gates_x = gates_x.contiguous()
        self.states = [state.contiguous() for state in states]
        self.weights = weights
        self.lengths = None if lengths is None else lengths.contiguous()
        self.reset = None if reset is None else reset.contiguous()
        self.reset_states, self.reverse = reset_states, reverse

        self.device = gates_x.device
        self.steps, self.batch, gates = gates_x.shape
        self.gates, self.recurrent = len(cell.gates), len(cell.recurrent_gates)
        self.hidden, self.width = gates // self.gates, states[0].shape[1]
        self.projected = weights.hr is not None
        self.work = WORKING_DTYPE.get(gates_x.dtype, gates_x.dtype)
        self.parameters = torch.cat(list(weights.unit)) if weights.unit else None
        # Times in the order of travel.
        self.times = range(self.steps)[::-1] if reverse else range(self.steps)
        # Whether dr, the gradients of the recurrent product's results, are dx, and so need not be written.
        self.shared = self.kernels.shared == tuple(range(self.gates))

    @property
    def bounded(self) -> bool:
        """Whether a step may read another state than the one that the step before it gave."""
        return self.lengths is not None or self.reset is not None

    def empty(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Uninitialised memory, in the storage dtype unless told."""
        return self.gates_x.new_empty(shape, dtype=dtype)

    def kept(self, everything: bool) -> tuple[int, ...]:
        """For each state its place in `Saved.after`, or -1; ``everything``: not only what the gradients mention."""
        read = [a or b or everything for a, b in zip(self.kernels.previous, self.kernels.next, strict=True)]
        return tuple(sum(read[1:k]) if k and needed else -1 for k, needed in enumerate(read))

    def saved(self, recompute: bool) -> Saved:
        """Memory for what forward keeps."""
        counts = 0 if recompute else len(self.kernels.saved), max(self.kept(recompute)) + 1, int(self.projected)
        return Saved(*(self.empty(count, self.steps, self.batch, self.hidden) for count in counts))

    def previous(self, recompute: bool) -> tuple[bool, ...]:
        """Which of the states before a step backward reads."""
        if not recompute:
            return self.kernels.previous
        return not self.cell.projection, *(True for _ in self.states[1:])

    def counts(self, recompute: bool) -> dict[str, Any]:
        """How many tiles the cell takes of each kind."""
        rows = 0 if self.parameters is None else len(self.parameters)
        kept = self.kept(recompute)
        return {"gates": self.gates, "recurrent": self.recurrent, "rows_of_parameters": rows, "kept": kept}

    def stacked(self, states: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
        """(S, B, H) of states; in the place of a projected hidden one, nothing."""
        stack = self.empty(len(states), self.batch, self.hidden, dtype=dtype)
        for k, state in enumerate(states):
            if k or not self.projected:
                stack[k].copy_(state)
        return stack

    def fresh(self) -> list[Tensor] | None:
        """What the states become at a boundary."""
        if self.reset is None:
            return None
        return list(self.reset_states or [torch.zeros_like(state) for state in self.states])

    def boundaries(self) -> Tensor:
        """(T, B, 1): whether the states are reset just before a step, in the direction of travel."""
        valid = None if self.lengths is None else valid_steps(self.lengths, self.steps)
        return boundaries(self.reset, valid, self.reverse).unsqueeze(-1)

    def boundary_before(self, i: int) -> Tensor:
        """(B, 1): whether the states are reset before step i, in the order of travel."""
        return self.boundaries()[self.times[i]]

    def hidden_before(self, output: Tensor) -> Tensor:
        """(T, B, P): the hidden state that each valid step reads."""
        first = self.states[0].unsqueeze(0)
        before = torch.cat([output[1:], first] if self.reverse else [first, output[:-1]])
        if self.lengths is not None and self.reverse:
            # Padding comes first, and the output is 0 there, not the state.
            times = torch.arange(self.steps, device=output.device)
            before = torch.where((times.unsqueeze(1) == self.lengths - 1).unsqueeze(-1), first, before)
        if self.reset is not None:
            before = torch.where(self.boundaries(), self.fresh()[0], before)
        return before
