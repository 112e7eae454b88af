"""The gradients of one layer, or a stack of them: their memory while the steps run, and their sums afterwards."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ...weights import Weights
from .problem import Problem
from .products import multiply


class Gradients:
    """Gradients of a `Problem`, in the working dtype where they are carried from step to step.

    * ``x`` (T, B, D·G·H), ``r`` (T, B, D·R·H), the same where every gate's part of the two is;
    * ``product`` (D, B, R·H): of what a step's recurrent product gave; None where the product finds it in ``r``;
    * ``states`` (S, D, B, H), ``hidden`` (D, B, P): of the states after a step; ``hidden`` is the first of ``states``
      unless that is projected: then that one is before projection, and ``projected`` (T, B, D·P) what reached
      its results;
    * ``read`` (D, B, P): what of that of the hidden state comes through the next step's product, apart from the rest;
    * ``fresh``, ``fresh_hidden``: of the reset states, alike, or None;
    * ``parameters`` (rows, D, B, H): of the per-unit parameters, for each sequence, or None.
    """

    def __init__(self, q: Problem, grad_final: Sequence[Tensor]) -> None:
        self.x = q.empty(q.steps, q.batch, q.directions * q.gates * q.hidden)
        width = q.recurrent * q.hidden
        self.r = self.x if q.shared else q.empty(q.steps, q.batch, q.directions * width)
        self.product = None
        if q.recurrent and q.directions > 1:
            self.product = q.empty(q.directions, q.batch, width)
        self.states = q.stacked(grad_final, q.work)
        self.hidden = grad_final[0].to(q.work, copy=True).contiguous() if q.projected else self.states[0]
        self.read = torch.zeros_like(self.hidden) if q.recurrent else None
        self.projected = q.empty(q.steps, q.batch, q.directions * q.width) if q.projected else None
        self.fresh = self.fresh_hidden = self.parameters = None
        if q.reset_states:
            self.fresh = torch.zeros_like(self.states)
            self.fresh_hidden = torch.zeros_like(self.hidden) if q.projected else self.fresh[0]
        if q.parameters is not None:
            rows = q.parameters.shape[1]
            self.parameters = torch.zeros(rows, *self.states.shape[1:], dtype=q.work, device=q.device)

    def flat(self, q: Problem, output: Tensor, raw: Tensor, before: Tensor | None) -> list[Tensor]:
        """All of them in their tensors' dtype, in the order of an engine's `backward`; the steps have run.

        Args:
            output: (T, B, D·P), forward's.
            raw: (1, T, B, D·H), the hidden state before projection; ignored where there is none.
            before: (T, B, D·P), the hidden state before each step; None where that is the output before it.
        """
        states, fresh = self._before_the_first_step(q)
        like, sums = list(q.states), list(states)
        for d, w in enumerate(q.weights):
            like += w.present()
            sums += self._of_weights(q, d, output, raw, before).present()
        like += q.reset_states or ()
        sums += fresh
        x = q.parts(self.x)[0] if q.is_stack else self.x
        found = [torch.empty_like(t) for t in like]
        if len({t.dtype for t in like}) == 1:  # of several some versions write all as the first
            torch._foreach_copy_(found, sums)
        else:
            for t, g in zip(found, sums, strict=True):
                t.copy_(g)
        return [x, *found]

    def _of_weights(self, q: Problem, d: int, output: Tensor, raw: Tensor, before: Tensor | None) -> Weights:
        """Of one direction's weights."""
        w, x, r = q.weights[d], q.parts(self.x)[d], q.parts(self.r)[d]
        rows = [len(unit) for unit in w.unit]
        bias = None if w.bias_hh is None else self._sum(r, q)
        return w._replace(
            ih=None if w.ih is None else _sum_of_products([(x, q.parts(output)[d - 1])], q.work),
            hh=None if w.hh is None else self._products(q, d, r, output, before),
            bias_ih=None if w.bias_ih is None else bias if q.shared and bias is not None else self._sum(x, q),
            bias_hh=bias,
            hr=None if w.hr is None else _sum_of_products([(q.parts(self.projected)[d], q.parts(raw[0])[d])], q.work),
            unit=() if self.parameters is None else self.parameters[:, d].sum(1).split(rows),
        )

    @staticmethod
    def _sum(gradients: Tensor, q: Problem) -> Tensor:
        return gradients.sum((0, 1), dtype=q.work)

    def _products(self, q: Problem, d: int, r: Tensor, output: Tensor, before: Tensor | None) -> Tensor:
        """Of weight_hh: one product over all steps; the first apart where what was read is where output was written."""
        if before is not None:
            return _sum_of_products([(r, q.parts(before)[d])], q.work)
        read = [(r[q.times[d][0]], q.states[0][d])]
        if q.steps > 1:
            later, earlier = slice(1, None), slice(None, -1)
            if q.backwards[d]:
                later, earlier = earlier, later
            read.append((r[later], q.parts(output)[d][earlier]))
        return _sum_of_products(read, q.work)

    def _before_the_first_step(self, q: Problem) -> tuple[list[Tensor], list[Tensor]]:
        """Of the initial states and the reset states."""
        hidden = self.hidden if self.read is None else self.hidden + self.read
        states = [hidden, *self.states[1:]]
        fresh = [] if self.fresh is None else [self.fresh_hidden, *self.fresh[1:]]
        if q.reset is not None:
            flag = q.boundary_at_first()
            fresh = [total + torch.where(flag, d, 0) for total, d in zip(fresh, states, strict=False)]
            states = [torch.where(flag, 0, d) for d in states]
        return states, fresh


def _sum_of_products(pairs: Sequence[tuple[Tensor, Tensor]], dtype: torch.dtype) -> Tensor:
    """Σ aᵀ b over the pairs (…, M), (…, N) and their leading dimensions → (M, N)."""
    products = []
    for a, b in pairs:
        out = a.new_empty(a.shape[-1], b.shape[-1], dtype=dtype)
        products.append(multiply(a.flatten(0, -2).T, b.flatten(0, -2), out))
    return sum(products[1:], products[0])
