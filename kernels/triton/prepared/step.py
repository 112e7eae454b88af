"""Calls of a layer of one step, or of a cell, that differ only in the addresses of their tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ....request.recurrence import Recurrence
from ....request.weights import Weights
from ..device import gates, step
from ..device.cells import CELLS
from ..host import configurations
from ..host.gemm import product
from ..host.gradients import of_weights
from ..host.launch import Repeated
from ..host.printed_kernels import of_one_stage
from ..host.problem import Problem
from ..plans import single_step
from .layer import PreparedLayer


class PreparedStep(PreparedLayer):
    """A layer by the single-step plan. Arguments as `PreparedLayer`, and:

    Args:
        zeros: whether there are no initial states.
        wanted: whether the gradients of initial states are wanted.
        reads_output: whether backward may read the output. If not, the hidden state is kept where backward reads it.
    """

    def __init__(
        self,
        q: Recurrence,
        place: int,
        weights: int,
        kept: int | None,
        *,
        zeros: bool,
        wanted: bool,
        reads_output: bool = True,
    ) -> None:
        kernels = CELLS[of_one_stage(q.cell)]
        counts = {"saved": len(kernels.saved), "after": max(Problem(q).kept(False)) + 1}
        counts["result"] = int(kernels.next[0] and not reads_output)
        super().__init__(q, place, weights, kept, counts)
        self.reads_output = reads_output
        own = self.problem
        dtype, states = own.dtype, (own.dtype,) * len(own.states)
        self._zeros, self._keeps_result = zeros, "result" in self._kept
        given = {name: dtype for name in ("saved", "after") if name in self._kept}
        forward = {"input": dtype, "final": states, "weight_ih": dtype, "weight": dtype}
        forward |= {} if own.bias is None else {"bias_ih": dtype, "bias": dtype}
        forward |= ({} if zeros else {"initial": states}) | given
        arguments = single_step.fixed(own)
        grid = arguments.pop("grid")
        self._with_output, self._without = (
            Repeated(step.forward, grid, forward | output, **arguments) for output in ({"output": dtype}, {})
        )
        if kept is not None:
            self._backward = [self._backward_launch(given, wanted, final) for final in (False, True)]
        self.forget()

    def _backward_launch(self, given: dict[str, Any], wanted: bool, given_final: bool) -> Repeated:
        q = self.problem
        states = (q.dtype,) * len(q.states)
        varying = {"grad_x": q.dtype} | ({"grad_final": states} if given_final else {})
        varying |= {} if q.dr_is_dx else {"grad_r": q.dtype}
        varying |= {"grad_output": q.dtype} if self.reads_output else {}
        varying |= {} if self._zeros else {"first": states}
        varying |= ({"grad_initial": states} if wanted else {}) | given
        varying |= {"result": q.dtype} if q.kernels.next[0] else {}
        tile = configurations.gates(q.batch, q.hidden, q.directions, q.work)
        fixed = {"cell": q.kernels.backward, "values": len(q.kernels.saved), "start": 0, "stop": 1, "steps": 1}
        fixed |= {"previous": q.kernels.previous, "next": q.kernels.next, "uncut": 0}
        sizes = {"batch": q.batch, "size": q.hidden, "directions": q.directions, "reverse": 0}
        return Repeated(gates.backward, tile.pop("grid"), varying, **tile, **fixed, **sizes, **q.counts(False))

    def forward(
        self,
        input: Tensor,
        initial: Sequence[Tensor] | None,
        final: Sequence[Tensor],
        output: Tensor,
        kept: Tensor | None,
        weights: Sequence[Tensor],
    ) -> None:
        """Arguments as `PreparedSequence.forward`. The output of a cell is its first final state."""
        ih, hh, bias_ih, bias_hh = self.together(weights)
        values = [input, self.states(final), ih, hh]
        if bias_hh is not None:
            values += bias_ih, bias_hh
        if not self._zeros:
            values.append(self.states(initial))
        values += self.saved(kept)  # with the result last, if that is kept
        if self._keeps_result or output is final[0]:
            (self._with_output if self._keeps_result else self._without)(values)
        else:
            self._with_output([*values, output])

    def backward(
        self,
        input: Tensor,
        initial: Sequence[Tensor] | None,
        output: Tensor | None,
        led: bool,
        kept: Tensor,
        grad_output: Tensor | None,
        grad_final: Sequence[Tensor] | None,
        grad_initial: Sequence[Tensor] | None,
        weights: Sequence[Tensor],
        wanted: Recurrence[bool],
    ) -> tuple[Tensor | None, list[Tensor | None]]:
        """As `PreparedSequence.backward`. Nothing lies around the output, so ``led`` does not matter. ``grad_output``
        is None where the output is a final state."""
        q, own = self.problem, self.own(weights)
        rows = (q.batch,) if input.dim() == 2 else (1, q.batch)
        given = input.shape  # it may lie as (B, 1, features)
        if given[:-1] != rows:
            input = input.view(*rows, -1)
        grad_x = kept.new_empty((*rows, q.directions * q.gates * q.hidden))
        grad_r = grad_x if q.dr_is_dx else kept.new_empty((*rows, q.directions * q.recurrent * q.hidden))
        values = [grad_x] if grad_final is None else [grad_x, self.states(grad_final)]
        if not q.dr_is_dx:
            values.append(grad_r)
        if self.reads_output:
            values.append(grad_output)
        values += [self.states(each) for each in (None if self._zeros else initial, grad_initial) if each is not None]
        values += self.saved(kept)
        if q.kernels.next[0] and not self._keeps_result:
            values.append(output)
        self._backward[grad_final is not None](values)
        flat: list[Tensor | None] = []
        for d, (w, want, x, r) in enumerate(zip(own, wanted.weights, q.parts(grad_x), q.parts(grad_r), strict=True)):
            read = self._hidden(initial, d, r) if initial is not None and want.hh else None
            found = of_weights(q, want._replace(hh=read is not None), x, r, input, read)
            if want.hh and read is None:
                found = found._replace(hh=torch.zeros_like(w.hh))
            flat += w.matching(found)
        if grad_initial is not None:
            self._add_what_was_read(grad_initial, grad_r, own)
        if not wanted.input:
            return None, flat
        of_input = product(grad_x, self.together(weights)[0])
        return of_input if of_input.shape == given else of_input.view(given), flat

    def _add_what_was_read(self, grad_initial: Sequence[Tensor], grad_r: Tensor, own: Sequence[Weights]) -> None:
        """Add to the gradient of the initial hidden state the part that comes through the recurrent product."""
        if len(own) == 1:
            self._hidden(grad_initial, 0, grad_r).add_(product(grad_r, own[0].hh))
            return
        both = product(torch.cat(self.problem.parts(grad_r)), torch.stack([w.hh for w in own]))
        for d, through in enumerate(both.split(1)):
            self.initial_hidden(grad_initial, d).add_(through)

    def _hidden(self, states: Sequence[Tensor], d: int, like: Tensor) -> Tensor:
        """This layer's part of the hidden state of all layers, in one direction, with as many axes as ``like``."""
        shape, whole = (*like.shape[:-1], self.problem.hidden), states[0]
        if whole.numel() > math.prod(shape):
            whole = self.initial_hidden(states, d)
        return whole if whole.shape == shape else whole.view(shape)
