"""The stepwise plan for cells that run by stages. For each stage of a step, the GEMM library makes its products and one
kernel does everything else. The plan runs every printed cell, both directions in one launch. Sizes are limited only
where rows are reduced."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
import triton.language as tl
from torch import Tensor

from ....cells import Cell
from ....request.precision import WORKING_DTYPE
from .. import interpreted
from ..device import staged_step
from ..device.staged_tables import Multiplied, Pass
from ..host import configurations
from ..host.gemm import multiply
from ..host.launch import Launch
from ..host.printed_kernels import passes
from ..host.staged_memory import OWN, PassMemory, Place, StagedLayer, Steps
from . import staged
from .shape import Shape
from .staged import saved_like

__all__ = ["backward", "forward", "saved_like", "why_not"]

WORK = {torch.float32: tl.float32, torch.float64: tl.float64}


def why_not(shape: Shape) -> str | None:
    """Why the plan cannot run a layer, or None."""
    return why_not_rows(shape.cell, shape.kept, shape.dtype, shape.hidden)


def why_not_rows(cell: type[Cell], kept: tuple[str, ...], dtype: torch.dtype, hidden: int) -> str | None:
    """Why a stage that reduces rows cannot have so many units, or None. A program has all units of such a row."""
    most = configurations.most_of_a_row(WORKING_DTYPE.get(dtype, dtype))
    if hidden <= most or interpreted():
        return None
    if not any(stage.reduced for each in passes(cell, kept) for stage in each.stages):
        return None
    return f"its steps reduce rows of {hidden} units, of which one program has registers for {most} at most"


class _Memory(PassMemory):
    """Memory with arrays for the values that pass from launch to launch: ``kept`` (D, B, columns·H), operands and
    products (D · heads, B, columns · H / heads)."""

    def __init__(self, layer: StagedLayer, of: Pass, tensors: Mapping[str, Tensor]) -> None:
        super().__init__(layer, of, tensors)
        self._heads = {f"operand.{m.operand}": self.heads(m) for m in of.products}
        self._heads |= {f"product.{k}": self.heads(m) for k, m in enumerate(of.products)}
        for name, (axes, columns) in of.arrays.items():
            if name in OWN or name in self._heads:
                shape = layer.directions, layer.batch, columns * (layer.hidden if "H" in axes else 1)
                self.tensors[name] = layer.empty(*shape, dtype=None if name.startswith("operand.") else layer.work)

    def own_place(self, name: str, column: int, written: bool) -> Place:
        if name in self._heads:
            return self.array_place(name, column, "parts", self._heads[name])
        return self.array_place(name, column)

    def parts(self, name: str) -> Tensor:
        """An operand or a product, with a matrix for each direction and head."""
        return self.tensors[name].view(self.layer.directions * self._heads[name], self.layer.batch, -1)


class _Product:
    """A product of two arrays in the memory, by the GEMM library."""

    def __init__(self, memory: _Memory, number: int, of: Multiplied) -> None:
        weight = memory.weight(of)
        self.stage = of.stage
        each = memory.parts(f"operand.{of.operand}"), weight if of.transposed else weight.mT
        each = *each, memory.parts(f"product.{number}")
        self._tensors = [tensor[0] for tensor in each] if len(weight) == 1 else each

    def __call__(self) -> None:
        multiply(*self._tensors)


def _run(steps: Steps) -> None:
    layer, of, arrays, carried, left, way = steps
    memory = _Memory(layer, of, arrays)
    products = [_Product(memory, k, multiplied) for k, multiplied in enumerate(of.products)]
    common = {"function": of.function, "arrays": memory.arrays, "first": tuple(layer.states)}
    common |= {"lengths": layer.lengths, "reset": layer.reset, "batch": layer.batch, "size": layer.hidden}
    common |= {"directions": layer.directions, "reverse": int(layer.reverse), "work": WORK[layer.work]}
    first, last = memory.tables(0), len(of.stages) - 1
    begin = Launch(staged_step.begin, **_tile(layer, of, 0), **common, **first, states=tuple(carried))
    following = {f"next_{name}": table for name, table in first.items()} | {"left": tuple(left)}
    launches = []
    for number in range(1, last + 1):
        tile = _tile(layer, of, *((number, 0) if number == last else (number,)))
        more = {**memory.tables(number), **(following if number == last else {}), "number": number, "way": way}
        launches.append(
            ([p for p in products if p.stage == number], Launch(staged_step.stage, **tile, **common, **more))
        )
    order = range(layer.steps)[::way]
    begin(order[0], layer.steps)
    for i in order:
        for multiplied, launch in launches:
            for product in multiplied:
                product()
            launch(i, layer.steps)


def _tile(layer: StagedLayer, of: Pass, *numbers: int) -> dict[str, Any]:
    """The configuration of a launch that runs the stages ``numbers``."""
    whole = any(of.stages[number].reduced for number in numbers)
    choose = configurations.whole_rows if whole else configurations.gates
    return choose(layer.batch, layer.hidden, layer.directions, layer.work)


forward, backward = partial(staged.forward, run=_run), partial(staged.backward, run=_run)
