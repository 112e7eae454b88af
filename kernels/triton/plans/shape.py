"""What a plan is chosen by. Nothing here imports triton by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch

    from ....cells import Cell
    from ....request.call import Call
    from ....request.recurrence import Recurrence


class Shape(NamedTuple):
    """What a plan is chosen by, under the names that a `Problem` has for it."""

    cell: type[Cell]
    device: torch.device
    dtype: torch.dtype
    steps: int
    batch: int
    directions: int
    hidden: int
    width: int
    """P, of the hidden state that is carried: the projected one's, or ``hidden``."""
    layers: int = 1
    """Of a stack that runs at once."""
    kept: tuple[str, ...] = ()
    """The names of what is kept of all steps besides the output."""

    @classmethod
    def of(cls, q: Recurrence) -> Shape:
        (steps, batch, _), (directions, _, width) = q.outside.shape, q.states[0].shape
        directions, layers = (1, directions) if q.stacked else (directions, 1)
        sizes = steps, batch, directions, q.hidden, width, layers
        return cls(q.cell, q.outside.device, q.outside.dtype, *sizes, q.kept)

    @classmethod
    def called(cls, call: Call) -> Shape:
        sizes = call.steps, call.rows, call.directions, call.hidden, call.width
        return cls(call.cell, call.device, call.dtype, *sizes, kept=kept_by(call.cell, call.options))

    @property
    def staged(self) -> bool:
        """Whether the cell runs by stages."""
        from ..host import printed  # it imports triton

        return printed.runs(self.cell, self.kept)

    @property
    def recurrent(self) -> int:
        return len(self.cell.recurrent_gates)

    @property
    def projected(self) -> bool:
        return self.width != self.hidden


def kept_by(cell: type[Cell], options: tuple[str, ...]) -> tuple[str, ...]:
    """What a call with such options keeps of all steps: it does not say, and is taken to keep the hidden state."""
    return cell.states[:1] if "keep" in options else ()
