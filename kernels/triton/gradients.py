"""The gradients of one layer in one direction: their memory while the steps run, and their sums afterwards."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .problem import Problem
from .products import multiply


class Gradients:
    """Gradients of a `Problem`, in the working dtype where they are carried from step to step.

    * ``x`` (T, B, G·H), ``r`` (T, B, R·H), the same where every gate's part of the two is;
    * ``states`` (S, B, H), ``hidden`` (B, P): of the states after a step; ``hidden`` is the first of ``states``
      unless that is projected: then that one is before projection, and ``projected`` (T, B, P) what reached
      its results;
    * ``read`` (B, P): what of that of the hidden state comes through the next step's product, apart from the rest;
    * ``fresh``, ``fresh_hidden``: of the reset states, alike, or None;
    * ``parameters`` (rows, B, H): of the per-unit parameters, for each sequence, or None.
    """

    def __init__(self, q: Problem, grad_final: Sequence[Tensor]) -> None:
        self.x = torch.empty_like(q.gates_x)
        self.r = self.x if q.shared else q.empty(q.steps, q.batch, q.recurrent * q.hidden)
        self.states = q.stacked(grad_final, q.work)
        self.hidden = grad_final[0].to(q.work, copy=True) if q.projected else self.states[0]
        self.read = torch.zeros_like(self.hidden) if q.recurrent else None
        self.projected = q.empty(q.steps, q.batch, q.width) if q.projected else None
        self.fresh = self.fresh_hidden = self.parameters = None
        if q.reset_states:
            self.fresh = torch.zeros_like(self.states)
            self.fresh_hidden = torch.zeros_like(self.hidden) if q.projected else self.fresh[0]
        if q.parameters is not None:
            self.parameters = torch.zeros(len(q.parameters), *self.states.shape[1:], dtype=q.work, device=q.device)

    def flat(self, q: Problem, output: Tensor, raw: Tensor, before: Tensor | None) -> list[Tensor]:
        """All of them in their tensors' dtype, in the order of an engine's `backward`; the steps have run.

        Args:
            output: (T, B, P), forward's.
            raw: (1, T, B, H), the hidden state before projection; ignored where there is none.
            before: (T, B, P), the hidden state before each step; None where that is the output before it.
        """
        w = q.weights
        sums = w._replace(
            hh=None if w.hh is None else self._products(q, output, before),
            bias_hh=None if w.bias_hh is None else self.r.sum((0, 1), dtype=q.work),
            hr=None if w.hr is None else _sum_of_products([(self.projected, raw[0])], q.work),
            unit=() if self.parameters is None else self.parameters.sum(1).split([len(unit) for unit in w.unit]),
        )
        states, fresh = self._before_the_first_step(q)
        like = [*q.states, *w.present(), *(q.reset_states or ())]
        rest = [*states, *sums.present(), *fresh]
        return [self.x, *(torch.empty_like(t, dtype=t.dtype).copy_(g) for t, g in zip(like, rest, strict=True))]

    def _products(self, q: Problem, output: Tensor, before: Tensor | None) -> Tensor:
        """Of weight_hh: one product over all steps; the first apart where what was read is where output was written."""
        if before is not None:
            return _sum_of_products([(self.r, before)], q.work)
        read = [(self.r[q.times[0]], q.states[0])]
        if q.steps > 1:
            later, earlier = slice(1, None), slice(None, -1)
            if q.reverse:
                later, earlier = earlier, later
            read.append((self.r[later], output[earlier]))
        return _sum_of_products(read, q.work)

    def _before_the_first_step(self, q: Problem) -> tuple[list[Tensor], list[Tensor]]:
        """Of the initial states and the reset states."""
        hidden = self.hidden if self.read is None else self.hidden + self.read
        states = [hidden, *self.states[1:]]
        fresh = [] if self.fresh is None else [self.fresh_hidden, *self.fresh[1:]]
        if q.reset is not None:
            flag = q.boundary_before(0)
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
