"""The persistent plan for cells that run by stages: one launch for all time steps of a pass. Programs meet before each
stage that has products, and where they reduce rows."""

from collections.abc import Mapping
from functools import partial
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from ....cells import Cell
from ....request.recurrence import Backward, Recurrence
from ..device import barrier, staged_sequence
from ..device.staged_tables import Multiplied, Pass
from ..host import configurations, precision, staged_divisions
from ..host.configurations import Division
from ..host.launch import Launch
from ..host.printed_kernels import passes
from ..host.staged_divisions import Weight, depth
from ..host.staged_memory import PassMemory, Place, StagedLayer, Steps
from . import persistent, staged, staged_stepwise
from .shape import Shape
from .staged import saved_like

__all__ = ["backward", "forward", "saved_like", "seconds", "why_not", "why_not_backward", "why_not_faster"]


def why_not(shape: Shape) -> str | None:
    """Why the plan cannot run a layer forward, or None."""
    return persistent.why_not_cooperative(shape) or _reason(division_of(shape, "forward"))


def why_not_backward(shape: Shape) -> str | None:
    """Why the plan cannot run a layer's backward, which `staged_stepwise` then runs, or None."""
    return _reason(division_of(shape, "backward"))


def why_not_faster(shape: Shape) -> str | None:
    """Why launching each stage is likely faster, or None."""
    stages = len(passes(shape.cell, shape.kept).forward.stages) - 1
    found = seconds(shape)
    if found is None or found < shape.steps * stages * configurations.STEP_SECONDS:
        return None
    return "launching each of its stages takes less time"


def seconds(shape: Shape, gradients: bool = False) -> float | None:
    """Seconds of a layer by the model of a meeting; ``gradients``: with backward. None where the plan cannot run the
    layer."""
    total = 0.0
    for which in ("forward", "backward") if gradients else ("forward",):
        found = division_of(shape, which)
        if isinstance(found, str):
            return None
        total += configurations.START_SECONDS + shape.steps * found.cycles / configurations.CLOCK_RATE
    return total


def forward(q: Recurrence, save: bool) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Run a layer. Returns output (T, B, D·H), final states, tensors that backward needs."""
    shape = Shape.of(q)
    reason = why_not(shape)
    if reason:
        raise RuntimeError(f"the persistent plan cannot run this layer: {reason}")
    return staged.forward(q, save, partial(_run, division_of(shape, "forward")))


def backward(q: Recurrence, given: Backward) -> list[Tensor | None]:
    """The gradients of ``q.differentiable()``, in its order; a gradient that is not wanted may be None."""
    division = division_of(Shape.of(q), "backward")
    if isinstance(division, str):
        return staged_stepwise.backward(q, given)
    return staged.backward(q, given, partial(_run, division))


def division_of(shape: Shape, which: str) -> Division | str:
    """How programs divide a layer in a pass, or why they cannot."""
    of = getattr(passes(shape.cell, shape.kept), which)
    weights = tuple(_weight(shape.cell, multiplied) for multiplied in of.products)
    return staged_divisions.division(
        shape.hidden,
        shape.batch,
        shape.directions,
        weights,
        _meetings(of)[-1],
        any(stage.reduced for stage in of.stages),
        max(sum(map(len, stage.reads.values())) for stage in of.stages),
        shape.dtype,
        precision.mode(shape.dtype),
        *configurations.processors(shape.device),
    )


def _reason(found: Division | str) -> str | None:
    return found if isinstance(found, str) else None


def _weight(cell: type[Cell], of: Multiplied) -> Weight:
    return Weight(len(of.blocks), cell.every_product[of.weight.removeprefix("weight_")].heads, of.transposed)


def _meetings(of: Pass) -> list[int]:
    """How often programs have met in a step before each stage, and in the whole step."""
    last = len(of.stages) - 1
    return [0, *accumulate(len(stage.reduced) + (k < last) for k, stage in enumerate(of.stages))]


class _Memory(PassMemory):
    """Memory whose own places are registers and the ring: they hold the values that pass between stages."""

    def __init__(self, layer: StagedLayer, of: Pass, tensors: Mapping[str, Tensor]) -> None:
        super().__init__(layer, of, tensors)
        self.depths = [depth(_weight(layer.cell, m), layer.hidden, layer.dtype) for m in of.products]
        self._held = self._in_registers()
        # In the ring one operand lies behind the other.
        self._ring, self.ring = {}, 0
        for m, each in zip(of.products, self.depths, strict=True):
            name, heads = f"operand.{m.operand}", self.heads(m)
            if name not in self._ring:
                columns = of.arrays[name][1]
                self._ring[name] = columns, heads, each.width, self.ring
                self.ring += columns * heads * each.width

    def own_place(self, name: str, column: int, written: bool) -> Place:
        if name.startswith("operand."):
            return "ring", 0, column, *self._ring[name]
        return ("absent" if written else "held"), 0, self._held[name, column], 1, 1

    def products(self) -> tuple[tuple[Any, ...], ...]:
        """The products as the kernel takes them."""
        pairs = zip(self.of.products, self.depths, strict=True)
        return tuple(
            (m.stage, self.own_place(f"operand.{m.operand}", 0, True), m.transposed, len(m.blocks), d.chunks, d.ahead)
            + (d.parts,)
            for m, d in pairs
        )

    def _in_registers(self) -> dict[tuple[str, int], int]:
        """The index of each value in registers: first the states, then for each stage its products and all its
        results."""
        found, count = {}, len(self.layer.cell.states)
        for number, stage in enumerate(self.of.stages):
            for k, m in enumerate(self.of.products):
                if m.stage == number:
                    columns = 1 if m.transposed else len(m.blocks)
                    found |= {(f"product.{k}", column): count + column for column in range(columns)}
                    count += columns
            for name, columns in stage.writes.items():
                found |= {(name, column): count + place for place, column in enumerate(columns)}
                count += len(columns)
        return found


def _run(division: Division, steps: Steps) -> None:
    layer, of, arrays, carried, left, way = steps
    memory = _Memory(layer, of, arrays)
    rows, blocks = division.tile["BLOCK_B"], division.tile["BLOCKS"]
    groups = -(-layer.batch // rows) * layer.directions
    counters = groups * barrier.APART.value
    exchanged = 2 * groups * rows * memory.ring * layer.dtype.itemsize
    room = torch.zeros(counters + exchanged // 4, dtype=torch.int32, device=layer.device)
    rounds = [0, *accumulate(len(stage.reduced) for stage in of.stages)]
    most = max((count for stage in of.stages for count in stage.reduced), default=1)
    tables = [memory.tables(number) for number in range(len(of.stages))]
    common = {name: tuple(table[name] for table in tables) for name in tables[0]}
    common |= {"function": of.function, "arrays": memory.arrays, "first": tuple(layer.states), "way": way}
    common |= {"weights": tuple(memory.weight(m) for m in of.products), "products": memory.products()}
    common |= {"states": tuple(carried), "left": tuple(left), "lengths": layer.lengths, "reset": layer.reset}
    common |= {"arrived": room, "ring": room[counters:].view(layer.dtype)}
    common |= {"partials": layer.empty(max(1, rounds[-1]) * groups * 2 * most * blocks * rows, dtype=layer.work)}
    common |= {"meetings": tuple(_meetings(of)), "rounds": tuple(rounds), "MOST": most}
    common |= {
        "steps": layer.steps,
        "batch": layer.batch,
        "size": layer.hidden,
        "work": staged_stepwise.WORK[layer.work],
    }
    common |= {"directions": layer.directions, "reverse": int(layer.reverse)}
    meeting = persistent.Meeting(groups, False, counters, len(room))
    for grid, start, stop, more in persistent.launches(division, meeting, layer.batch, layer.directions, layer.dtype):
        Launch(staged_sequence.run, grid, **more, **common)(start, stop)
