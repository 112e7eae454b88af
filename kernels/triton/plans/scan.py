"""The scan plan: chunks of a sequence run side by side, as sequences of their own, where the sequences alone do not
fill the GPU. It is for cells whose new state is linear in the old one: s' = a s + b, with a and b of the input alone.
These are minGRU and minLSTM (Feng et al. 2024, arXiv:2410.01201), and T-RNN.

A chunk that begins with s ends with A s + B. B is the chunk's end from zeros. A is the derivative of its end by its
beginning. The cell's own backward pass gives A exactly; a difference of two ends would round it. One small kernel
carries states from chunk to chunk. Then all chunks run once more, each from its beginning.

Backward works in the same way. The gradient that later chunks pass to an earlier chunk is linear in the gradient that
they get, with the same A. So a scan has only one kernel of its own, and every cell whose equations allow it can be
scanned.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from ....derive.linear_in_state import why_not_linear
from ....request.boundaries import valid_steps
from ....request.precision import WORKING_DTYPE
from ....request.recurrence import Backward, Recurrence
from ..device.scan_carry import carry
from ..host import configurations
from ..host.launch import once
from . import stepwise
from .shape import Shape
from .stepwise import saved_like

__all__ = ["backward", "forward", "saved_like", "why_not"]

LEAST = 16
"""The least number of time steps of a chunk."""
FULL = 4
"""How many programs each multiprocessor is given."""
PASSES = 3
"""How often a scan goes through all steps: forward, its derivative, and forward once more."""
LAUNCHES = 6
"""How many launches a scan has besides, copies of chunks among them."""
BLOCK = 256
"""The units of a program of `carry`."""


def why_not(shape: Shape) -> str | None:
    """Why a layer is not for a scan, or None."""
    if shape.recurrent or shape.has_projection or shape.kept or shape.cell.streams or not shape.cell.returns_first:
        return ""
    return why_not_linear(shape.cell) or why_not_faster(shape)


def why_not_faster(shape: Shape) -> str | None:
    """Why going through the steps one by one is likely faster, or None. Both ways are estimated from the seconds of a
    step and of a start."""
    count = chunks(shape)
    if count < 2:
        return "the sequences fill the GPU, or are short"
    step = configurations.STEP_SECONDS if shape.staged else configurations.LOOP_SECONDS
    alone = configurations.START_SECONDS + shape.steps * step
    scanned = LAUNCHES * configurations.START_SECONDS + PASSES * shape.steps / count * step
    return None if scanned < alone else "its steps one by one take less time than so many launches"


def chunks(shape: Shape) -> int:
    """The number of chunks of a sequence: as many as fill the GPU, each of at least `LEAST` steps."""
    work = WORKING_DTYPE.get(shape.dtype, shape.dtype)
    programs = math.prod(configurations.gates(shape.batch, shape.hidden, shape.directions, work)["grid"])
    multiprocessors, _ = configurations.processors(shape.device)
    return max(1, min(FULL * multiprocessors // max(1, programs), shape.steps // LEAST))


def forward(q: Recurrence, save: bool) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Run a layer. Returns output (T, B, D·H), final states, tensors that backward needs."""
    chunked = Chunks.of(q)
    if chunked is None:
        return stepwise.forward(q, save)
    rows = chunked.recurrence(chunked.like(q.states[0]).zero_())
    output, (end,), saved = chunked.engine.forward(rows, True)
    starts, final = chunked.carried(chunked.gain(rows, output, saved), end, q.states[0])
    output, _, saved = chunked.engine.forward(rows._replace(states=[starts]), save)
    return chunked.whole(output), [final.to(q.states[0].dtype)], [chunked.whole(each, each.dim() - 3) for each in saved]


def backward(q: Recurrence, given: Backward) -> list[Tensor | None]:
    """The gradients of ``q.differentiable()``, in its order; a gradient that is not wanted may be None."""
    chunked = Chunks.of(q)
    if chunked is None:
        return stepwise.backward(q, given)
    rows = chunked.recurrence(chunked.starts(given.output))
    output, saved = chunked.rows(given.output), [chunked.rows(each, each.dim() - 3) for each in given.saved]
    grad_output, nothing = chunked.rows(given.grad_output), chunked.like(q.states[0]).zero_()
    gain = chunked.gain(rows, output, saved)
    alone = chunked.of_starts(rows, output, saved, grad_output, nothing)
    ends, of_initial = chunked.carried(gain, alone, given.grad_final[0], against=True)
    wanted = given.wanted._replace(states=[True])
    flat = [*chunked.engine.backward(rows, Backward(output, saved, grad_output, [ends], wanted))]
    flat[0] = None if flat[0] is None else chunked.whole(flat[0])
    flat[1] = of_initial.to(q.states[0].dtype)
    if q.reset_states is not None:
        place = next(k for k, each in enumerate(rows.differentiable()) if each is rows.reset_states[0])
        grad = flat[place]
        flat[place] = None if grad is None else chunked.by_chunk(grad).sum(1).to(q.reset_states[0].dtype)
    return flat


def _engine(shape: Shape) -> ModuleType:
    from .plan import plan  # `plan` imports this module when it asks for it

    return plan(shape, without=("scan",)).module


class Chunks:
    """A layer's sequences as chunks: K·B sequences, the first chunks of all sequences first."""

    def __init__(self, q: Recurrence, count: int) -> None:
        self.q, (self.steps, self.batch) = q, q.outside.shape[:2]
        self.length = -(-self.steps // count)
        self.count = -(-self.steps // self.length)
        self._padding = self.count * self.length - self.steps
        self.work = WORKING_DTYPE.get(q.outside.dtype, q.outside.dtype)
        shape = Shape.of(q)._replace(steps=self.length, batch=self.count * self.batch)
        self.engine = _engine(shape)
        """The plan that runs the chunks."""

    @classmethod
    def of(cls, q: Recurrence) -> Chunks | None:
        """None where a reset could lie between two chunks of a direction that goes backwards, or where there is only
        one chunk."""
        directions = range(len(q.weights))
        if q.reset is not None and any(q.reversed(d) for d in directions):
            return None
        count = chunks(Shape.of(q))
        return cls(q, count) if count > 1 and q.outside.numel() else None

    def rows(self, whole: Tensor, axis: int = 0) -> Tensor:
        """A tensor (T, B, ·), perhaps with another axis before these, as (steps of a chunk, K·B, ·)."""
        if self._padding:
            size = [*whole.shape]
            size[axis] = self._padding
            whole = torch.cat([whole, whole.new_zeros(size)], axis)
        parts = whole.unflatten(axis, (self.count, self.length)).transpose(axis, axis + 1)
        return parts.contiguous().flatten(axis + 1, axis + 2)

    def whole(self, rows: Tensor, axis: int = 0) -> Tensor:
        """The reverse of `rows`."""
        parts = rows.unflatten(axis + 1, (self.count, self.batch)).transpose(axis, axis + 1)
        return parts.contiguous().flatten(axis, axis + 1).narrow(axis, 0, self.steps).contiguous()

    def by_chunk(self, rows: Tensor) -> Tensor:
        """(D, K·B, H) as (D, K, B, H)."""
        return rows.unflatten(1, (self.count, self.batch))

    def like(self, state: Tensor) -> Tensor:
        """Memory for the states of all chunks (D, K·B, H). It has the working dtype, so that no state is rounded
        between chunks."""
        return state.new_empty((state.shape[0], self.count * self.batch, state.shape[2]), dtype=self.work)

    def recurrence(self, states: Tensor) -> Recurrence:
        """The layer of chunks, which begin with ``states``."""
        q = self.q
        outside = {
            name: self.rows(each) for name, each in (("gates_x", q.gates_x), ("input", q.input)) if each is not None
        }
        reset_states = q.reset_states
        if reset_states is not None:
            reset_states = [each.repeat(1, self.count, 1) for each in reset_states]
        reset = None if q.reset is None else self.rows(q.reset)
        return q._replace(**outside, states=[states], lengths=self._lengths(), reset=reset, reset_states=reset_states)

    def _lengths(self) -> Tensor | None:
        q, device = self.q, self.q.outside.device
        if q.lengths is None and not self._padding:
            return None
        whole = torch.full((self.batch,), self.steps, device=device) if q.lengths is None else q.lengths
        before = torch.arange(self.count, device=device).unsqueeze(1) * self.length
        return (whole.to(torch.int64) - before).clamp(0, self.length).flatten()

    def gain(self, rows: Recurrence, output: Tensor, saved: Sequence[Tensor]) -> Tensor:
        """A (D, K·B, H): the derivative of each chunk's end by its beginning."""
        ones = torch.ones_like(self.like(self.q.states[0]))
        return self.of_starts(rows, output, saved, torch.zeros_like(output), ones)

    def of_starts(
        self, rows: Recurrence, output: Tensor, saved: Sequence[Tensor], grad_output: Tensor, grad_end: Tensor
    ) -> Tensor:
        """The gradient of each chunk's beginning (D, K·B, H), with each chunk taken as a sequence of its own."""
        wanted = rows.replaced([False] * len(rows.differentiable()))._replace(states=[True])
        given = Backward(output, saved, grad_output, [grad_end], wanted)
        return self.engine.backward(rows, given)[1].to(self.work)

    def starts(self, output: Tensor) -> Tensor:
        """The states with which the chunks begin (D, K·B, H), from a layer's output (T, B, D·H)."""
        q, size = self.q, self.q.states[0].shape[2]
        found = self.by_chunk(self.like(q.states[0]))
        for d, first in enumerate(q.states[0]):
            own, ends = output[..., d * size : (d + 1) * size], self.length * torch.arange(1, self.count)
            if q.reversed(d):
                found[d, :-1], found[d, -1] = own[ends.to(output.device)], first
                if q.lengths is not None:  # such a sequence begins at its length, after padding whose output is 0
                    begun = q.lengths > ends.to(output.device).unsqueeze(1)
                    found[d, :-1] = torch.where(begun.unsqueeze(-1), found[d, :-1], first.to(self.work))
            else:
                found[d, 1:], found[d, 0] = own[ends.to(output.device) - 1], first
        return found.flatten(1, 2)

    def _cut(self, units: int) -> Tensor | None:
        """In which chunks a reset lies (K, B·H). Nothing is carried beyond it, not even a NaN. None without resets."""
        if self.q.reset is None:
            return None
        reset = self.q.reset
        if self.q.lengths is not None:
            reset = reset & valid_steps(self.q.lengths, self.steps)
        return self.rows(reset).any(0).view(self.count, self.batch, 1).expand(-1, -1, units).contiguous()

    def carried(self, gain: Tensor, end: Tensor, first: Tensor, against: bool = False) -> tuple[Tensor, Tensor]:
        """The states with which each chunk begins (D, K·B, H), and the states with which the last chunk ends (D, B, H).
        Chunks come in the direction of travel, or ``against`` it."""
        directions, size = gain.shape[0], self.batch * gain.shape[2]
        first = first.to(self.work).contiguous()
        starts, last = torch.empty_like(gain), torch.empty_like(first)
        backwards = sum((self.q.reversed(d) != against) << d for d in range(directions))
        arguments: dict[str, Any] = {"gain": gain.contiguous(), "end": end.to(self.work).contiguous(), "first": first}
        arguments |= {"cut": self._cut(gain.shape[2]), "starts": starts, "last": last}
        arguments |= {"count": self.count, "size": size, "backwards": backwards}
        once(carry, (-(-size // BLOCK), directions, 1), **arguments, directions=directions, BLOCK=BLOCK)
        return starts, last
