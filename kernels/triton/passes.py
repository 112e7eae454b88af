"""The memory of one pass of a cell of several stages, and where in it its stages read and write."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ...cells import Cell
from ...recurrence import Recurrence
from .problem import Layer, stacked
from .staged_cells import CELLS
from .tables import Columns, Multiplied, Pass, Staged

OWN = "kept", "operand.", "product."
"""What the names of a pass's own arrays begin with."""
ADDED = "sums", "grad_fresh."
"""Likewise of arrays to which steps add."""


def staged(cell: type[Cell]) -> Staged | None:
    """The passes of a cell of several stages, or None where none are printed. Of another number of heads, which no
    printed text knows, it is the same cell."""
    found = CELLS.get(cell.name)
    if found is None and cell.base.name in CELLS:
        own, base = ({**each.options, "heads": None} for each in (cell, cell.base))
        found = CELLS[cell.base.name] if own == base else None
    return found


class StagedLayer(Layer):
    """A `Layer` of a cell of several stages."""

    def __init__(self, q: Recurrence) -> None:
        super().__init__(q)
        self.passes = staged(q.cell)
        each = [{"weight_hh": w.hh, "bias_hh": w.bias_hh, **w.named(q.cell)} for w in q.weights]
        self._named = {name: stacked([named[name] for named in each]) for name in each[0]}

    def parameter(self, name: str) -> Tensor | None:
        """Of all directions: (D, …)."""
        return self._named.get(name)

    @property
    def kept_names(self) -> list[str]:
        """Of the arrays that forward keeps for backward."""
        return [name for name in self.passes.forward.arrays if name.startswith(("saved", "numbers", "after."))]

    def kept(self) -> dict[str, Tensor]:
        """Memory for them: in the storage dtype, but for numbers of a row."""
        found = {}
        for name in self.kept_names:
            axes, columns = self.passes.forward.arrays[name]
            units, dtype = (self.hidden, None) if "H" in axes else (1, self.work)
            found[name] = self.empty(self.steps, self.batch, self.directions * columns * units, dtype=dtype)
        return found


class Product:
    """A product: its operand and its result, (D · heads, B, ·) each, and the weight as it is multiplied by."""

    def __init__(self, memory: "PassMemory", k: int, of: Multiplied) -> None:
        self.stage, tensors = of.stage, memory.tensors
        weight = memory.weight(of)
        self.weight = weight if of.transposed else weight.mT
        heads = memory.heads(of)
        self.operand, self.result = (
            tensors[name].view(memory.layer.directions * heads, memory.layer.batch, -1)
            for name in (f"operand.{of.operand}", f"product.{k}")
        )
        if len(self.operand) == 1:  # as a product takes it that is not one of several
            self.operand, self.weight, self.result = self.operand[0], self.weight[0], self.result[0]


class PassMemory:
    """Of a `Layer`.

    Args:
        tensors: the arrays that the caller has, by name: of axes TBH (T, B, D·columns·H), TB (T, B, D·columns), BH (D,
            B, columns·H), H (D, columns·H), and of none (D, columns). Those it lacks are zero and not written, but for
            the pass's own, which are made.
    """

    def __init__(self, layer: StagedLayer, of: Pass, tensors: Mapping[str, Tensor]) -> None:
        self.layer, self.of = layer, of
        self.tensors = {**self._weights(), **tensors}
        for name, (axes, columns) in of.arrays.items():
            if name.startswith(OWN):
                dtype = None if name.startswith("operand.") else layer.work
                units = columns * (layer.hidden if "H" in axes else 1)
                self.tensors[name] = layer.empty(layer.directions, layer.batch, units, dtype=dtype)
        self._numbers = {name: k for k, name in enumerate(name for name in of.arrays if name in self.tensors)}

    @property
    def arrays(self) -> tuple[Tensor, ...]:
        """As kernels are given them."""
        return tuple(self.tensors[name] for name in self._numbers)

    def products(self) -> list[Product]:
        return [Product(self, k, of) for k, of in enumerate(self.of.products)]

    def heads(self, of: Multiplied) -> int:
        return self.layer.cell.every_product[of.weight.removeprefix("weight_")].heads

    def weight(self, of: Multiplied) -> Tensor:
        """(D · heads, row blocks · H / heads, H / heads); of one head it is no copy."""
        heads, whole = self.heads(of), self.layer.parameter(of.weight)
        blocks = whole.view(len(whole), -1, heads, self.layer.hidden // heads, whole.shape[-1])
        if of.blocks != tuple(range(blocks.shape[1])):
            blocks = blocks[:, list(of.blocks)]
        return blocks.transpose(1, 2).reshape(len(whole) * heads, -1, whole.shape[-1])

    def places(self, columns: Columns) -> tuple[tuple[Any, ...], ...]:
        """Columns as `places` has them."""
        return tuple(self._place(name, column) for name, some in columns.items() for column in some)

    def adds(self, columns: Columns) -> tuple[bool, ...]:
        """Of the same, which are added to what is there."""
        return tuple(name.startswith(ADDED) for name, some in columns.items() for _ in some)

    def _place(self, name: str, column: int) -> tuple[Any, ...]:
        if name in ("carried", "units"):
            return name, 0, column, 1, 1
        if name.startswith("before."):
            state = name.removeprefix("before.")
            return "before", self._numbers[name], self.layer.cell.states.index(state), 1, 1
        if name not in self.tensors:
            return "absent", 0, column, 1, 1
        axes, columns = self.of.arrays[name]
        heads = 1
        if name.startswith(("operand.", "product.")):
            axes, heads = "parts", self._heads_of(name)
        return axes, self._numbers[name], column, columns, heads

    def _heads_of(self, name: str) -> int:
        kind, _, number = name.partition(".")
        products = enumerate(self.of.products)
        return next(self.heads(m) for k, m in products if (m.operand if kind == "operand" else k) == int(number))

    def _weights(self) -> dict[str, Tensor]:
        """Rows, numbers and biases of all directions."""
        found = {}
        for name in self.of.arrays:
            if name.startswith(("weight_", "bias_")):
                tensor = self.layer.parameter(name)
                if tensor is not None:
                    found[name] = tensor.flatten(1)
        return found
