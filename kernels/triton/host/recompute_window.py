"""What backward recomputes, some steps at a time, where forward kept only the states.

The input is projected again. One GEMM over a window's steps gives the results of the recurrent products, from the
hidden state before each step. From these and the states, the cell's forward gives the values that it saves. The
stepwise plan's kernel, `gates.backward`, runs that forward itself. The persistent plan's kernel has no registers left
for it, so `gates.values` runs it before.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from ..device import gates
from . import configurations
from .gemm import linear, multiply
from .launch import Launch
from .problem import Problem


def steps_at_once(q: Problem, values: int) -> int:
    """How many steps a window has: a part of all steps or, if more, as many as fit in `configurations.RECOMPUTE_BYTES`.
    These bytes are for everything that exists once per step of a window, including the gradients x and r."""
    held = q.gates + (q.gates if q.dr_is_dx else q.gates + q.recurrent) + values
    of_a_unit = held * q.dtype.itemsize + q.recurrent * q.work.itemsize
    of_a_step = q.directions * q.batch * (q.hidden * of_a_unit + q.width * q.dtype.itemsize)
    part = -(-q.steps // configurations.RECOMPUTE_PARTS)
    return min(q.steps, max(part, configurations.RECOMPUTE_BYTES // max(1, of_a_step)))


class Window:
    """What a `Problem`'s cell gave in a window of ``steps`` steps. The window before it takes the same memory. Each
    direction has its own steps, in the order of time.

    * ``x`` (steps, B, D·G·H), the input projected;
    * ``before`` (steps, B, D·P), the hidden state before each step;
    * ``product`` (D, steps, B, R·H), or None without a recurrent product;
    * ``saved`` (count, steps, B, D·H), or None where no values are asked for.
    """

    def __init__(self, q: Problem, output: Tensor, **states: Any) -> None:
        """``output`` (T, B, D·P) is forward's. With ``states``, as `gates.values` reads them, the cell's values are
        computed too."""
        self.q, self.output = q, output
        values = len(q.kernels.saved) if states else 0
        self.steps = steps_at_once(q, values)
        self.x = q.empty(self.steps, q.batch, q.directions * q.gates * q.hidden)
        self.before = q.empty(self.steps, *output.shape[1:])
        self.product = self.saved = self.values = None
        if q.recurrent:
            self.product = q.empty(q.directions, self.steps, q.batch, q.recurrent * q.hidden, dtype=q.work)
        if values:
            self.saved = q.empty(values, self.steps, q.batch, q.directions * q.hidden)
            self.values = self._launch(**states)

    def compute(self) -> Iterator[tuple[int, int]]:
        """Compute window after window, the last one first. Yields a window's first step and the step behind its
        last."""
        for first in reversed(range(0, self.q.steps, self.steps)):
            stop = min(first + self.steps, self.q.steps)
            self._compute(first, stop)
            yield first, stop

    def _compute(self, first: int, stop: int) -> None:
        q, count = self.q, stop - first
        x, before = q.parts(self.x[:count]), q.parts(q.hidden_before(self.output, first, stop, self.before[:count]))
        for d, w in enumerate(q.weights):
            times = q.span(d, first, stop)
            x[d].copy_(q.parts(q.outside)[d][times] if q.input is None else linear(q.input[times], w.ih, w.bias_ih))
            if q.recurrent:
                multiply(before[d].flatten(0, 1), w.hh.mT, self.product[d, :count].flatten(0, 1))
        if self.values:
            self.values(first, stop)

    def _launch(self, **states: Any) -> Launch:
        q = self.q
        tile = configurations.gates(q.batch, q.hidden, q.directions, q.work)
        rows, units, directions = tile.pop("grid")
        return Launch(
            gates.values,
            (rows * self.steps, units, directions),
            cell=q.kernels.forward,
            x=self.x,
            product=self.product,
            bias=q.bias,
            saved=self.saved,
            before=self.before,
            parameters=q.parameters,
            lengths=q.lengths,
            reset=q.reset,
            steps=q.steps,
            batch=q.batch,
            size=q.hidden,
            window=self.steps,
            previous=q.previous(recompute=True),
            next=(False,) * len(q.states),
            directions=q.directions,
            reverse=int(q.reverse),
            **q.counts(recompute=True),
            **tile,
            **states,
        )
