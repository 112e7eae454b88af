"""One layer of a prepared stack: what its calls have in common, whichever plan runs it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ....request.recurrence import Recurrence
from ....request.weights import Weights
from ..host.launch import Part
from ..host.problem import Problem


class PreparedLayer:
    """A layer of a stack, and where its weights are among the weights of all layers.

    Args:
        q: the layer. Only the shapes, dtypes and device of its tensors count.
        place: its number in the stack.
        weights: where its weights begin.
        kept: where its part begins in the block that all layers keep for backward; None where nothing is kept.
        counts: how many arrays (T, B, D·H) it keeps, by the names that kernels have for them.
    """

    def __init__(self, q: Recurrence, place: int, weights: int, kept: int | None, counts: dict[str, int]) -> None:
        self.problem = problem = Problem(q)
        self._weights: list[tuple[Weights, slice]] = []
        self.end = weights
        for w in q.weights:
            own = slice(self.end, self.end + len(w.present()))
            self._weights.append((w.replaced([*range(own.start, own.stop)]), own))
            self.end = own.stop
        self._places = [*zip(*(places[:4] for places, _ in self._weights), strict=True)]
        self._ahead = place * problem.directions * problem.batch * problem.hidden  # offset in the states of all layers
        self.size = problem.steps, problem.batch, problem.directions * problem.hidden  # the output's size
        self._kept: dict[str, int] = {}
        self.kept_end = kept
        for name, count in counts.items() if kept is not None else ():
            if count:
                self._kept[name] = self.kept_end
                self.kept_end += aligned(count * math.prod(self.size), problem.dtype)

    def forget(self) -> None:
        """Release the caller's tensors, once everything is compiled."""
        q = self.problem.recurrence
        self.problem = Problem(q.replaced([tensor.to("meta") for tensor in q.differentiable()]))

    def own(self, weights: Sequence[Tensor]) -> list[Weights]:
        """This layer's weights among the weights of all layers, direction by direction."""
        return [like.replaced(weights[place]) for like, place in self._weights]

    def together(self, weights: Sequence[Tensor]) -> list[Tensor | None]:
        """This layer's ih, hh, bias_ih and bias_hh, all directions one below the other. A single direction is not
        copied."""
        return [side_by_side([None if k is None else weights[k] for k in places]) for places in self._places]

    def states(self, states: Sequence[Tensor] | None) -> tuple[Any, ...] | None:
        """This layer's part of the states of all layers."""
        if states is None or not self._ahead:
            return states and tuple(states)
        return tuple(Part(state, self._ahead, state.dtype) for state in states)

    def initial_hidden(self, initial: Sequence[Tensor], d: int) -> Tensor:
        """(1, B, H): the initial hidden state in one direction."""
        q = self.problem
        return initial[0].view(-1, q.batch, q.hidden)[self._ahead // (q.batch * q.hidden) + d].unsqueeze(0)

    def saved(self, kept: Tensor | None) -> list[Part]:
        """What this layer keeps, as parts of the block of all layers, in the order of ``counts``."""
        return [Part(kept, first, kept.dtype) for first in self._kept.values()]


def aligned(count: int, dtype: torch.dtype) -> int:
    """``count``, rounded up so that what comes next begins where torch's own memory might. At other addresses libraries
    use other kernels, which give other bits."""
    whole = 256 // dtype.itemsize
    return -(-count // whole) * whole


def side_by_side(tensors: Sequence[Tensor | None]) -> Tensor | None:
    """The tensors of all directions, one below the other. A single direction is not copied."""
    return tensors[0] if len(tensors) == 1 or tensors[0] is None else torch.cat(list(tensors))
