"""Layers of cells of several stages: what forward and backward are, whatever plan runs their steps."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ...cells import Cell
from ...recurrence import Backward, Recurrence
from . import precision
from .passes import StagedLayer, staged
from .staged_gradients import StagedGradients
from .tables import Pass

Run = Callable[[StagedLayer, Pass, Mapping[str, Tensor], Sequence[Tensor], Sequence[Tensor], int], None]
"""Runs all steps of a layer's pass, with arrays as `passes.PassMemory` has them, from the states that are carried to
the first to those that are left by the last: in order or, for -1, the last step first."""


def runs(cell: type[Cell]) -> bool:
    """Whether there are kernels for its stages."""
    return staged(cell) is not None


def saved_like(q: Recurrence) -> list[Tensor]:
    """Empty tensors of the shapes that `forward` saves."""
    return [*StagedLayer(q).kept().values()]


def forward(q: Recurrence, save: bool, run: Run) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """A layer → output (T, B, D·H), final states, what backward needs."""
    with torch.cuda.device_of(q.outside), precision.obeyed_by_torch(precision.mode(q.outside.dtype)):
        layer = StagedLayer(q)
        output = layer.empty(layer.steps, layer.batch, layer.directions * layer.hidden)
        kept = layer.kept() if save else {}
        given = {"gates_x": layer.gates_x(), "output": output, **kept, **_fresh(layer)}
        final = [torch.empty_like(state) for state in layer.states]
        run(layer, layer.passes.forward, given, layer.states, final, 1)
        return output, final, [*kept.values()]


def backward(q: Recurrence, given: Backward, run: Run) -> list[Tensor | None]:
    """The gradients of ``q.differentiable()``, in its order; those that are not wanted may be None."""
    with torch.cuda.device_of(given.output), precision.obeyed_by_torch(precision.mode(given.output.dtype)):
        layer = StagedLayer(q)
        found = StagedGradients(layer, given)
        grad_final = [grad.contiguous() for grad in given.grad_final]
        run(layer, layer.passes.backward, {**found.arrays, **_fresh(layer)}, grad_final, found.states, -1)
        return found.flat()


def _fresh(layer: StagedLayer) -> dict[str, Tensor]:
    return dict(zip((f"fresh.{state}" for state in layer.cell.states), layer.fresh() or (), strict=False))
