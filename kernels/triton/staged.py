"""The stepwise plan for cells of several stages: at each step, for each stage, its products by the GEMM library and one
kernel for all the rest.

It runs every cell that is printed, at any size, both directions in one launch.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import triton.language as tl
from torch import Tensor

from ...cells import Cell
from ...recurrence import Backward, Recurrence
from . import configurations, precision, stages
from .launch import Launch
from .passes import PassMemory, StagedLayer, staged
from .plan import Shape
from .products import multiply
from .staged_gradients import StagedGradients

WORK = {torch.float32: tl.float32, torch.float64: tl.float64}


def runs(cell: type[Cell]) -> bool:
    """Whether there are kernels for its stages."""
    return staged(cell) is not None


def refuses(shape: Shape) -> None:
    """Nothing: any size is for this plan."""


def saved_like(q: Recurrence) -> list[Tensor]:
    """Empty tensors of the shapes that `forward` saves."""
    return [*StagedLayer(q).kept().values()]


def forward(q: Recurrence, save: bool) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """A layer → output (T, B, D·H), final states, what backward needs."""
    with torch.cuda.device_of(q.outside), precision.obeyed_by_torch(precision.mode(q.outside.dtype)):
        layer = StagedLayer(q)
        output = layer.empty(layer.steps, layer.batch, layer.directions * layer.hidden)
        kept = layer.kept() if save else {}
        given = {"gates_x": layer.gates_x(), "output": output, **kept, **_fresh(layer)}
        final = [torch.empty_like(state) for state in layer.states]
        run(PassMemory(layer, layer.passes.forward, given), layer.states, final, 1)
        return output, final, [*kept.values()]


def backward(q: Recurrence, given: Backward) -> list[Tensor | None]:
    """The gradients of ``q.differentiable()``, in its order; those that are not wanted may be None."""
    with torch.cuda.device_of(given.output), precision.obeyed_by_torch(precision.mode(given.output.dtype)):
        layer = StagedLayer(q)
        found = StagedGradients(layer, given)
        grad_final = [grad.contiguous() for grad in given.grad_final]
        run(PassMemory(layer, layer.passes.backward, {**found.arrays, **_fresh(layer)}), grad_final, found.states, -1)
        return found.flat()


def run(memory: PassMemory, carried: Sequence[Tensor], left: Sequence[Tensor], way: int) -> None:
    """All steps of a pass: in order, or with ``way`` -1 the last first; from the states ``carried`` to those that are
    ``left``."""
    layer, of, products = memory.layer, memory.of, memory.products()
    common = {"function": of.function, "arrays": memory.arrays, "first": tuple(layer.states)}
    common |= {"lengths": layer.lengths, "reset": layer.reset, "batch": layer.batch, "size": layer.hidden}
    common |= {"directions": layer.directions, "reverse": int(layer.reverse), "work": WORK[layer.work]}
    tables = [_tables(memory, number) for number in range(len(of.stages))]
    first, last = tables[0], len(tables) - 1
    begin = Launch(stages.begin, **_tile(memory, 0), **common, **first, states=tuple(carried))
    following = {f"next_{name}": table for name, table in first.items()} | {"left": tuple(left)}
    launches = []
    for number in range(1, len(tables)):
        more = following if number == last else {}
        tile = _tile(memory, number, *[0] * (number == last))
        launch = Launch(stages.stage, **tile, **common, **tables[number], **more, number=number, way=way)
        launches.append(([product for product in products if product.stage == number], launch))
    order = range(layer.steps)[::way]
    begin(order[0], layer.steps)
    for i in order:
        for multiplied, launch in launches:
            for product in multiplied:
                multiply(product.operand, product.weight, product.result)
            launch(i, layer.steps)


def _fresh(layer: StagedLayer) -> Mapping[str, Tensor]:
    names = [f"fresh.{state}" for state in layer.cell.states]
    return dict(zip(names, layer.fresh() or (), strict=False))


def _tables(memory: PassMemory, number: int) -> dict[str, Any]:
    stage = memory.of.stages[number]
    return {
        "reads": memory.places(stage.reads),
        "writes": memory.places(stage.writes),
        "adds": memory.adds(stage.writes),
    }


def _tile(memory: PassMemory, *numbers: int) -> dict[str, Any]:
    """Of a launch of some stages."""
    layer, whole = memory.layer, any(memory.of.stages[number].reduced for number in numbers)
    choose = configurations.whole_rows if whole else configurations.gates
    return choose(layer.batch, layer.hidden, layer.directions, layer.work)
