"""The gradients of one layer, or of a stack of layers: their memory while the steps run, and their sums over steps."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ....request.recurrence import Backward
from ....request.weights import Weights
from .gemm import multiply, over_time, sum_of_products, sum_of_rows
from .problem import Problem


def of_weights(q: Problem, want: Weights, x: Tensor, r: Tensor, input: Tensor | None, read: Tensor | None) -> Weights:
    """The wanted gradients of one direction's weights, except the projection's and parameters', in the tensors' dtype.
    All tensors below may lack the axis of time.

    Args:
        want: for each weight, whether its gradient is wanted.
        x, r: (T, B, G·H), (T, B, R·H), of all steps; the same tensor where the two are equal for every gate.
        input: (T, B, features), if the gradient of ih is wanted.
        read: (T, B, P), what the recurrent products read, if the gradient of hh is wanted.
    """
    bias = bias_hh = None
    rows = [*range(x.dim() - 1)]
    if want.bias_ih or (want.bias_hh and q.dr_is_dx):
        bias = x.sum(rows)
    if want.bias_hh:
        bias_hh = r.sum(rows) if not q.dr_is_dx else bias.clone() if want.bias_ih else bias
    return Weights(
        ih=over_time(x, input) if want.ih else None,
        hh=over_time(r, read) if want.hh else None,
        bias_ih=bias if want.bias_ih else None,
        bias_hh=bias_hh,
    )


class Gradients:
    """Gradients of a `Problem`, in the working dtype where they are carried from step to step.

    * ``x`` (steps, B, D·G·H), ``r`` (steps, B, D·R·H): the gradients of the two parts of the gates, one tensor where
      they are equal for every gate. They are of all steps, or of a window, until they are gathered;
    * ``product`` (D, B, R·H): of what a step's recurrent product gave; None where the product finds it in ``r``;
    * ``states`` (S, D, B, H), ``hidden`` (D, B, P): of the states after a step. ``hidden`` is the first of ``states``,
      unless the hidden state is projected. Then the first of ``states`` is before projection, and ``projected`` (T, B,
      D·P) has the gradients of the projection's results;
    * ``read`` (D, B, P): the part of the hidden state's gradient that comes through the next step's product, apart from
      the rest;
    * ``reset_states``, ``reset_hidden``: of the reset states, likewise, or None;
    * ``parameters`` (rows, D, B, H): of the per-unit parameters, for each sequence, or None;
    * ``weights``: of each direction's remaining weights; ``outside``: of the input or of gates_x, or None. They have
      the ``wanted`` gradients, of the steps that are gathered.
    """

    def __init__(self, q: Problem, given: Backward, steps: int) -> None:
        """``steps``: the number of all steps, or of a window's steps."""
        self.q, self.wanted, self.whole = q, given.wanted, steps == q.steps
        self.x = q.empty(steps, q.batch, q.directions * q.gates * q.hidden)
        width = q.recurrent * q.hidden
        self.r = self.x if q.dr_is_dx else q.empty(steps, q.batch, q.directions * width)
        self.product = None
        if q.recurrent and q.directions > 1:
            self.product = q.empty(q.directions, q.batch, width)
        self.states = q.stacked(given.grad_final, q.work)
        self.hidden = given.grad_final[0].to(q.work, copy=True).contiguous() if q.has_projection else self.states[0]
        self.read = torch.zeros_like(self.hidden) if q.recurrent else None
        self.projected = q.empty(q.steps, q.batch, q.directions * q.width) if q.has_projection else None
        self.reset_states = self.reset_hidden = self.parameters = None
        if q.reset_states:
            self.reset_states = torch.zeros_like(self.states)
            self.reset_hidden = torch.zeros_like(self.hidden) if q.has_projection else self.reset_states[0]
        if q.parameters is not None:
            rows = q.parameters.shape[1]
            self.parameters = torch.zeros(rows, *self.states.shape[1:], dtype=q.work, device=q.device)
        self.weights: list[Weights] = []
        self.outside = self._empty_outside()

    def gather(self, first: int, stop: int, output: Tensor, before: Tensor | None) -> None:
        """Add what ``x`` and ``r`` have of steps ``first`` to ``stop``.

        Args:
            output: (T, B, D·P), forward's output.
            before: (stop - first, B, D·P), the hidden state before each of these steps. None means that they are all
                steps, and that the hidden state before a step is the output before it. None takes less memory, and one
                more product.
        """
        q = self.q
        x, r = (q.parts(gradients[: stop - first]) for gradients in (self.x, self.r))
        read = [None] * q.directions if before is None else q.parts(before)
        sums = [self._of_weights(d, q.span(d, first, stop), x[d], r[d], read[d], output) for d in range(q.directions)]
        if self.weights:
            pairs = [(w.present(), more.present()) for w, more in zip(self.weights, sums, strict=True)]
            sums = [w.replaced([*map(torch.add, *pair)]) for w, pair in zip(sums, pairs, strict=True)]
        self.weights = sums
        self._gather_outside(first, stop, x)

    def flat(self, raw: Tensor) -> list[Tensor | None]:
        """All wanted gradients, in their tensors' dtype and in the order of an engine's `backward`, once all steps are
        gathered.

        ``raw`` (1, T, B, D·H) is the hidden state before projection; it is ignored where there is no projection.
        """
        q = self.q
        states, reset_states = self._before_the_first_step()
        like, sums = list(q.states), list(states)
        for d, (w, own) in enumerate(zip(q.weights, self.weights, strict=True)):
            if w.hr is not None:
                own = own._replace(hr=sum_of_products([(q.parts(self.projected)[d], q.parts(raw[0])[d])], q.work))
            if self.parameters is not None:
                own = own._replace(own=self.parameters[:, d].sum(1).split([len(unit) for unit in w.own]))
            like += w.present()
            sums += w.matching(own)
        like += q.reset_states or ()
        sums += reset_states
        found = [None if g is None else torch.empty_like(t) for t, g in zip(like, sums, strict=True)]
        copies, originals = ([t for t in tensors if t is not None] for tensors in (found, sums))
        if len({t.dtype for t in copies}) == 1:  # with several dtypes some versions of torch write all as the first
            torch._foreach_copy_(copies, originals)
        else:
            for t, g in zip(copies, originals, strict=True):
                t.copy_(g)
        return [self.outside, *found]

    def _of_weights(self, d: int, times: slice, x: Tensor, r: Tensor, read: Tensor | None, output: Tensor) -> Weights:
        """The gradients of one direction's ih, hh and biases, summed over some steps."""
        q, want = self.q, self.wanted.used[d]
        below = q.parts(output)[d - 1] if q.is_stack and d else q.input
        if self.whole and read is not None:
            return of_weights(q, want, x, r, below, read)
        bias = sum_of_rows(r, q.work) if want.bias_hh else None
        bias_ih = None
        if want.bias_ih:
            bias_ih = bias if q.dr_is_dx and bias is not None else sum_of_rows(x, q.work)
        return Weights(
            ih=sum_of_products([(x, below[times])], q.work) if want.ih else None,
            hh=sum_of_products(self._read(d, r, read, output), q.work) if want.hh else None,
            bias_ih=bias_ih,
            bias_hh=bias,
        )

    def _read(self, d: int, r: Tensor, read: Tensor | None, output: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Pairs of ``r`` and what the products read. Where that is the output one step earlier, the first step is a
        pair of its own."""
        if read is not None:
            return [(r, read)]
        q = self.q
        pairs = [(r[q.times[d][0]], q.states[0][d])]
        if q.steps > 1:
            later, earlier = slice(1, None), slice(None, -1)
            if q.backwards[d]:
                later, earlier = earlier, later
            pairs.append((r[later], q.parts(output)[d][earlier]))
        return pairs

    def _empty_outside(self) -> Tensor | None:
        """Memory for the gradient of what comes from outside: the input or gates_x."""
        q = self.q
        if not self.wanted.outside:
            return None
        if q.input is None and self.whole:
            return q.parts(self.x)[0] if q.is_stack else self.x
        empty = q.empty(*q.outside.shape)
        # Zero, because two directions each add their windows.
        return empty.zero_() if q.input is not None and q.directions > 1 and not self.whole else empty

    def _gather_outside(self, first: int, stop: int, x: Sequence[Tensor]) -> None:
        q, outside = self.q, self.outside
        if outside is None or (q.input is None and self.whole):
            return
        if q.input is None:
            for d, own in enumerate(x):
                q.parts(outside)[d][q.span(d, first, stop)] = own
            return
        if q.is_stack or q.directions == 1:
            here = outside[q.span(0, first, stop)]
            multiply(x[0].flatten(0, 1), q.weights[0].ih, here.flatten(0, 1))
        elif self.whole:
            multiply(self.x.flatten(0, 1), q.input_weights[0], outside.flatten(0, 1))
        else:
            for d, (own, w) in enumerate(zip(x, q.weights, strict=True)):
                part = multiply(own.flatten(0, 1), w.ih, q.empty(own.shape[0] * q.batch, w.ih.shape[1]))
                here = outside[q.span(d, first, stop)]
                here += part.view_as(here)

    def _before_the_first_step(self) -> tuple[list[Tensor], list[Tensor]]:
        """The gradients of the initial states and of the reset states."""
        q = self.q
        hidden = self.hidden if self.read is None else self.hidden + self.read
        states = [hidden, *self.states[1:]]
        reset_states = [] if self.reset_states is None else [self.reset_hidden, *self.reset_states[1:]]
        if q.reset is not None:
            flag = q.boundary_at_first()
            reset_states = [total + torch.where(flag, d, 0) for total, d in zip(reset_states, states, strict=False)]
            states = [torch.where(flag, 0, d) for d in states]
        return states, reset_states
