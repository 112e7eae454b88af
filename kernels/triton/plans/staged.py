"""Forward and backward of layers whose cells run by stages, whatever plan runs the steps."""

from collections.abc import Callable

import torch
from torch import Tensor

from ....request.recurrence import Backward, Recurrence
from ..device.staged_tables import Staged
from ..host import precision
from ..host.staged_gradients import StagedGradients
from ..host.staged_memory import StagedLayer, Steps

Run = Callable[[Steps], None]


def saved_like(q: Recurrence, passes: Staged | None = None) -> list[Tensor]:
    """Empty tensors of the shapes that `forward` saves."""
    return [*StagedLayer(q, passes).saved().values()]


def forward(
    q: Recurrence, save: bool, run: Run, passes: Staged | None = None
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Run a layer. Returns output (T, B, D·H); final states and the values kept for all steps; tensors that backward
    needs."""
    with torch.cuda.device_of(q.outside), precision.obeyed_by_torch(precision.mode(q.outside.dtype)):
        layer = StagedLayer(q, passes)
        output = layer.empty(layer.steps, layer.batch, layer.directions * layer.hidden)
        saved, results = layer.saved() if save else {}, layer.results()
        given = {"gates_x": layer.gates_x(), "output": output, **saved, **results, **_read(layer)}
        final = [torch.empty_like(state) for state in layer.states]
        run(Steps(layer, layer.passes.forward, given, layer.states, final, 1))
        return output, [*final, *results.values()], [*saved.values()]


def backward(q: Recurrence, given: Backward, run: Run, passes: Staged | None = None) -> list[Tensor | None]:
    """The gradients of ``q.differentiable()``, in its order; a gradient that is not wanted may be None."""
    with torch.cuda.device_of(given.output), precision.obeyed_by_torch(precision.mode(given.output.dtype)):
        layer = StagedLayer(q, passes)
        found = StagedGradients(layer, given)
        grad_final = [grad.contiguous() for grad in given.grad_final[: len(layer.states)]]
        run(Steps(layer, layer.passes.backward, {**found.arrays, **_read(layer)}, grad_final, found.states, -1))
        return found.flat()


def _read(layer: StagedLayer) -> dict[str, Tensor]:
    """The arrays that both passes read besides parameters: reset states and streams."""
    names = (f"reset_state.{state}" for state in layer.cell.states)
    return dict(zip(names, layer.reset_states_or_zeros() or (), strict=False)) | layer.streams()
