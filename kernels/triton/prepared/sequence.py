"""Calls of a layer by the persistent plan that differ only in the addresses of their tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ....request.recurrence import Recurrence
from ..device import sequence
from ..device.cells import CELLS
from ..host.gemm import product, projected
from ..host.gradients import of_weights
from ..host.launch import Part, Repeated
from ..host.printed_kernels import of_one_stage
from ..host.problem import Problem
from ..plans.persistent import Meeting, division_of, launches
from ..plans.shape import Shape
from .layer import PreparedLayer


class _Pass:
    """A pass of one layer: its launches, and the memory by which its programs meet."""

    def __init__(
        self, kernel: Any, q: Problem, sums: tuple[int, int], varying: Mapping[str, Any], fixed: Mapping[str, Any]
    ) -> None:
        division = division_of(Shape.of(q.recurrence), *sums)
        self._dtype, self._device = q.dtype, q.device
        self._meeting = meeting = Meeting.of(division, q.batch, q.directions, q.dtype, False)
        self._ring = meeting.counters * torch.int32.itemsize // q.dtype.itemsize  # its offset in elements of q.dtype
        dtypes = dict(varying)
        if meeting.room:
            dtypes |= {"arrived": torch.int32, "ring": q.dtype}
        common = {"steps": q.steps, "batch": q.batch, "size": q.hidden, "directions": q.directions, "reverse": 0}
        self._launches = [
            Repeated(kernel, grid, dtypes, start=start, stop=stop, **common, **more, **fixed, **q.counts(False))
            for grid, start, stop, more in launches(division, meeting, q.batch, q.directions, q.dtype)
        ]

    def __call__(self, values: list[Any]) -> None:
        """Launch the pass. ``values`` are in the order of ``varying``, without arguments that are None."""
        if self._meeting.room:
            room = torch.zeros(self._meeting.room, dtype=torch.int32, device=self._device)
            values += room, Part(room, self._ring, self._dtype)
        for launch in self._launches:
            launch(values)


class PreparedSequence(PreparedLayer):
    """A layer by the persistent plan. Arguments as `PreparedLayer`, and:

    Args:
        zeros: whether there are no initial states.
        wanted: whether the gradients of initial states are wanted.
    """

    def __init__(self, q: Recurrence, place: int, weights: int, kept: int | None, *, zeros: bool, wanted: bool) -> None:
        kernels = CELLS[of_one_stage(q.cell)]
        counts = {"saved": len(kernels.saved), "after": max(Problem(q).kept(False)) + 1}
        super().__init__(q, place, weights, kept, counts)
        dtype, states = self.problem.dtype, (self.problem.dtype,) * len(self.problem.states)
        self._zeros, self._kept_dtypes = zeros, dict.fromkeys(self._kept, dtype)
        forward = {"x": dtype, "output": dtype, "final": states, "weight": dtype}
        forward |= {} if self.problem.bias is None else {"bias": dtype}
        forward |= ({} if zeros else {"initial": states}) | self._kept_dtypes
        fixed = {"cell": kernels.forward, "led": kept is not None}
        self._forward = _Pass(sequence.forward, self.problem, (1, 1), forward, fixed)
        if kept is not None:
            # One pass without gradients of final states, and one with them.
            self._backward = [self._backward_pass(wanted, given) for given in (False, True)]
        self.forget()

    def _backward_pass(self, wanted: bool, given_final: bool) -> _Pass:
        q = self.problem
        states = (q.dtype,) * len(q.states)
        given = {"weight": q.dtype, "result": q.dtype, "grad_output": q.dtype, "grad_x": q.dtype}
        given |= {"grad_final": states} if given_final else {}
        given |= {} if q.dr_is_dx else {"grad_r": q.dtype}
        given |= {} if self._zeros else {"first": states}
        given |= ({"grad_initial": states} if wanted else {}) | self._kept_dtypes
        fixed = {"cell": q.kernels.backward, "values": len(q.kernels.saved), "begin": 0, "end": q.steps}
        fixed |= {"previous": q.kernels.previous, "next": q.kernels.next, "dr_is_dx": q.dr_is_dx}
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
        """Run the layer. All arguments but input and output are the whole stack's."""
        ih, hh, bias_ih, bias_hh = self.together(weights)
        values = [projected(input, ih, bias_ih), output, self.states(final), hh]
        if bias_hh is not None:
            values.append(bias_hh)
        if not self._zeros:
            values.append(self.states(initial))
        self._forward(values + self.saved(kept))

    def backward(
        self,
        input: Tensor,
        initial: Sequence[Tensor] | None,
        output: Tensor,
        led: bool,
        kept: Tensor,
        grad_output: Tensor,
        grad_final: Sequence[Tensor] | None,
        grad_initial: Sequence[Tensor] | None,
        weights: Sequence[Tensor],
        wanted: Recurrence[bool],
    ) -> tuple[Tensor | None, list[Tensor | None]]:
        """The wanted gradients of the input and of the weights. All arguments but input and output are the whole
        stack's.

        Args:
            led: whether the output lies where `output_maker` made it.
        """
        q, own = self.problem, self.own(weights)
        grad_x = kept.new_empty((q.steps, q.batch, q.directions * q.gates * q.hidden))
        grad_r = grad_x if q.dr_is_dx else kept.new_empty((q.steps, q.batch, q.directions * q.recurrent * q.hidden))
        ih, hh, _, _ = self.together(weights)
        values = [hh, output, grad_output, grad_x]
        if grad_final is not None:
            values.append(self.states(grad_final))
        if not q.dr_is_dx:
            values.append(grad_r)
        values += [self.states(each) for each in (None if self._zeros else initial, grad_initial) if each is not None]
        self._backward[grad_final is not None](values + self.saved(kept))
        flat: list[Tensor | None] = []
        for d, (w, want, x, r) in enumerate(zip(own, wanted.weights, q.parts(grad_x), q.parts(grad_r), strict=True)):
            read = self._read(output, led, initial, d) if want.hh else None
            flat += w.matching(of_weights(q, want, x, r, input, read))
        return product(grad_x, ih) if wanted.input else None, flat

    def _read(self, output: Tensor, led: bool, initial: Sequence[Tensor] | None, d: int) -> Tensor:
        """(T, B, H): what the recurrent product of each step read, in one direction."""
        q = self.problem
        _, batch, width = self.size
        size, strides = (q.steps, q.batch, q.hidden), (batch * width, width, 1)
        if led:
            ahead = output.storage_offset() + (strides[0] if d else -strides[0]) + d * q.hidden
            return output.as_strided(size, strides, ahead)
        part = q.parts(output.view(self.size))[d]
        if initial is None:
            begin = torch.zeros_like(part[:1])
        else:
            begin = self.initial_hidden(initial, d)
        return torch.cat([part[1:], begin] if d else [begin, part[:-1]])
