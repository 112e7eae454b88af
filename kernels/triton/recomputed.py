"""What backward computes once more where forward kept no more than the states, of some steps at a time.

One product over those steps gives what the recurrent products gave, from the hidden state before each. From these, the
input and the states the cell's forward gives the values that it saves: in the kernel of `gates.backward`, or ahead of
it, where a kernel has no registers left for both.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from . import configurations, gates
from .launch import Launch
from .problem import Problem
from .products import multiply


class Window:
    """Of a `Problem` what its cell gave in so many ``steps``, whose tensors the next steps then take.

    * ``product`` (D, steps, B, R·H), in the order of travel, or None without a recurrent product;
    * ``saved`` (count, steps, B, D·H), step i in place i modulo ``steps``, or None where nobody asked for values.

    Together they are `configurations.RECOMPUTE_BYTES`, or what one step takes if that is more.
    """

    def __init__(self, q: Problem, before: Tensor | None, **states: Any) -> None:
        """``before`` (T, B, D·P): the hidden state before each step; with ``states``, as `gates.values` reads them, the
        cell's values are computed too."""
        self.q, self.before = q, before
        of_product, count = q.recurrent * q.hidden, len(q.kernels.saved) if states else 0
        of_a_step = of_product * q.work.itemsize + count * q.hidden * q.gates_x.dtype.itemsize
        of_a_step *= q.directions * q.batch
        self.steps = min(q.steps, configurations.RECOMPUTE_BYTES // max(1, of_a_step) or 1)
        self.product = self.saved = self.values = None
        if q.recurrent:
            self.product = q.empty(q.directions, self.steps, q.batch, of_product, dtype=q.work)
        if count:
            self.saved = q.empty(count, self.steps, q.batch, q.directions * q.hidden)
            self.values = self._launch(**states)

    def compute(self, first: int, stop: int) -> None:
        """Of steps ``first`` to ``stop``, which are none of two windows."""
        q = self.q
        for d, read in enumerate(q.parts(self.before) if q.recurrent else ()):
            read = read[q.steps - stop : q.steps - first].flip(0) if q.backwards[d] else read[first:stop]
            multiply(read.flatten(0, 1), q.weights[d].hh.mT, self.product[d, : stop - first].flatten(0, 1))
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
            x=q.gates_x,
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
