"""The shape by which a plan is chosen. Triton is imported inside functions only."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch

    from ....cells import Cell
    from ....request.call import Call
    from ....request.recurrence import Recurrence


class Shape(NamedTuple):
    """The properties by which a plan is chosen, under the names that a `Problem` has for them."""

    cell: type[Cell]
    device: torch.device
    dtype: torch.dtype
    steps: int
    batch: int
    directions: int
    hidden: int
    width: int
    """P, the size of the carried hidden state: the projected size, or ``hidden``."""
    layers: int = 1
    """How many layers of a stack run in one launch."""
    kept: tuple[str, ...] = ()
    """The names of the values that are kept for all steps, besides the output."""

    @classmethod
    def of(cls, q: Recurrence) -> Shape:
        (steps, batch, _), (directions, _, width) = q.outside.shape, q.states[0].shape
        directions, layers = (1, directions) if q.stacked else (directions, 1)
        sizes = steps, batch, directions, q.hidden, width, layers
        return cls(q.cell, q.outside.device, q.outside.dtype, *sizes, q.kept)

    @classmethod
    def of_call(cls, call: Call) -> Shape:
        sizes = call.steps, call.rows, call.directions, call.hidden, call.width
        return cls(call.cell, call.device, call.dtype, *sizes, kept=kept_by(call.cell, call.options))

    @property
    def staged(self) -> bool:
        """Whether the cell runs by stages."""
        from ..host import printed_kernels  # it imports triton

        return printed_kernels.is_staged(self.cell, self.kept)

    @property
    def recurrent(self) -> int:
        return len(self.cell.recurrent_gates)

    @property
    def has_projection(self) -> bool:
        return self.width != self.hidden


def kept_by(cell: type[Cell], options: tuple[str, ...]) -> tuple[str, ...]:
    """The names of the values that a call keeps for all steps. Its options do not name them, so the hidden state is
    assumed."""
    return cell.states[:1] if "keep" in options else ()
