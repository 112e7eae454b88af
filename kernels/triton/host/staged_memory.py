"""The memory of one pass of a cell that runs by stages, and where in it the stages read and write."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from ....request.recurrence import Recurrence
from ..device.staged_tables import Multiplied, Pass, Staged
from .printed_kernels import passes
from .problem import Layer, stacked

OWN = "kept", "kept_numbers"
"""Arrays of a plan's own, besides operands and products."""
Place = tuple[Any, ...]
"""A place as `places` defines it."""


def adds(name: str, axes: str) -> bool:
    """Whether steps add to an array: a sum or a gradient that has no axis of time."""
    return name.startswith(("sums", "grad_")) and "T" not in axes


class StagedLayer(Layer):
    """A `Layer` whose cell runs by stages, with the passes of Triton's plans unless others are ``given``."""

    def __init__(self, q: Recurrence, given: Staged | None = None) -> None:
        super().__init__(q)
        self.passes = given or passes(q.cell, q.kept)
        each = [{"weight_hh": w.hh, "bias_hh": w.bias_hh, **w.named(q.cell)} for w in q.weights]
        self._named = {name: stacked([named[name] for named in each]) for name in each[0]}

    def streams(self) -> dict[str, Tensor]:
        """What the cell reads from outside besides the gates, in the layout of its passes' arrays."""
        given = dict(self.recurrence.streams)
        if "input" in self.cell.streams and self.input is not None:
            given["input"] = self.input.expand(self.directions, *self.input.shape)
        return {f"x.{name}": _together(self.cell.streams[name], stream) for name, stream in given.items()}

    def results(self) -> dict[str, Tensor]:
        """Memory for the values of all steps that are returned besides the output."""
        widths = {name: self.directions * self.recurrence.width(name) for name in self.recurrence.kept}
        return {f"kept.{name}": self.empty(self.steps, self.batch, width) for name, width in widths.items()}

    def parameter(self, name: str) -> Tensor | None:
        """A parameter of all directions (D, …)."""
        return self._named.get(name)

    @property
    def saved_names(self) -> list[str]:
        """The names of the arrays that forward keeps for backward."""
        return [name for name in self.passes.forward.arrays if name.startswith(("saved", "numbers", "after."))]

    def saved(self) -> dict[str, Tensor]:
        """Memory for the arrays that forward keeps: in the storage dtype, but in the working dtype for numbers of a
        row."""
        found = {}
        for name in self.saved_names:
            axes, columns = self.passes.forward.arrays[name]
            units, dtype = (self.hidden, None) if "H" in axes else (1, self.work)
            found[name] = self.empty(self.steps, self.batch, self.directions * columns * units, dtype=dtype)
        return found


class Steps(NamedTuple):
    """All steps of a layer's pass, which a plan runs."""

    layer: StagedLayer
    of: Pass
    arrays: Mapping[str, Tensor]
    """The caller's arrays, as `PassMemory` takes them."""
    carried: Sequence[Tensor]
    """The states that the first step begins with."""
    left: Sequence[Tensor]
    """Memory for the states that the last step leaves."""
    way: int
    """1: in order; -1: the last step first."""


class PassMemory:
    """The memory of a layer's pass. `own_place` says where a plan's own arrays are: ``kept``, operands and products.

    Args:
        tensors: the caller's arrays, by name. By their axes they are TBH (T, B, D·columns·H), TB (T, B, D·columns), TH
            (T, D·columns·H), T (T, D·columns), BH (D, B, columns·H), B (D, B, columns), H (D, columns·H), and without
            axes (D, columns). An array that is missing is read as zero, and not written.
    """

    def __init__(self, layer: StagedLayer, of: Pass, tensors: Mapping[str, Tensor]) -> None:
        self.layer, self.of = layer, of
        self.tensors = {**self._parameters(), **tensors}

    @property
    def arrays(self) -> tuple[Tensor, ...]:
        """The tensors as kernels are given them."""
        return tuple(self.tensors[name] for name in self._numbers())

    def heads(self, of: Multiplied) -> int:
        """The number of heads of a product's weight."""
        return self.layer.cell.every_product[of.weight.removeprefix("weight_")].heads

    def weight(self, of: Multiplied) -> Tensor:
        """A product's weight (D · heads, row blocks · H / heads, H / heads); with one head it is no copy."""
        heads, whole = self.heads(of), self.layer.parameter(of.weight)
        blocks = whole.view(len(whole), -1, heads, self.layer.hidden // heads, whole.shape[-1])
        if of.blocks != tuple(range(blocks.shape[1])):
            blocks = blocks[:, list(of.blocks)]
        return blocks.transpose(1, 2).reshape(len(whole) * heads, -1, whole.shape[-1])

    def tables(self, number: int) -> dict[str, tuple[Any, ...]]:
        """The places that a stage reads and writes, and which writes add to the stored values."""
        reads, writes, _ = self.of.stages[number]
        each = [(name, column) for name, columns in writes.items() for column in columns]
        return {
            "reads": tuple(self._place(name, column, False) for name, some in reads.items() for column in some),
            "writes": tuple(self._place(name, column, True) for name, column in each),
            "adds": tuple(adds(name, self.of.arrays[name][0]) for name, _ in each),
        }

    def own_place(self, name: str, column: int, written: bool) -> Place:
        """The place of an array of a plan's own."""
        raise NotImplementedError

    def array_place(self, name: str, column: int, axes: str = "", heads: int = 1) -> Place:
        """The place of a column of one of the `arrays`. ``axes``, if given, is another kind of place than the array's
        axes."""
        return axes or self.of.arrays[name][0], self._numbers()[name], column, self.of.arrays[name][1], heads

    def _place(self, name: str, column: int, written: bool) -> Place:
        if name == "carried":
            return ("carried" if written else "held"), 0, column, 1, 1
        if name == "units":
            return name, 0, column, 1, 1
        if name in OWN or name.startswith(("operand.", "product.")):
            return self.own_place(name, column, written)
        if name not in self.tensors:
            return "absent", 0, column, 1, 1
        if name.startswith("before."):
            state = self.layer.cell.states.index(name.removeprefix("before."))
            return "before", self._numbers()[name], state, 1, 1
        return self.array_place(name, column)

    def _numbers(self) -> dict[str, int]:
        return {name: k for k, name in enumerate(name for name in self.of.arrays if name in self.tensors)}

    def _parameters(self) -> dict[str, Tensor]:
        """The parameters that stages read, of all directions: rows, numbers and biases."""
        found = {name: self.layer.parameter(name) for name in self.of.arrays if name.startswith(("weight_", "bias_"))}
        return {name: tensor.flatten(1) for name, tensor in found.items() if tensor is not None}


def _together(axes: str, stream: Tensor) -> Tensor:
    """A stream (D, ·) in the layout of arrays, where directions come after steps."""
    if "T" not in axes:
        return stream.contiguous()
    beside = 2 if "B" in axes else 1
    return stream.movedim(0, beside).flatten(beside).contiguous()
