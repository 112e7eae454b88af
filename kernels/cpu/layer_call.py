"""A call as the kernels take it: its tensors under the names of the kernels' arrays, and the fields that are passed to
the extension.

States and sums are float32 or float64. float16 and bfloat16 are formats for storage; where the machine has a unit for
products of bfloat16, products also read bfloat16.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ...cells import Cell
from ...derive.transformed_cells import transformed
from ...request.boundaries import boundaries, valid_steps
from ...request.precision import WORKING_DTYPE
from ...request.recurrence import Recurrence
from ...request.weights import Weights
from .call_fields import Compiled, compiled
from .library import PRECISIONS, pooled, precision, threads

Arrays = Mapping[str, Tensor | None]


def kernels_of(q: Recurrence) -> Compiled:
    """The kernels that run a recurrence."""
    return compiled(cell_of_loop(q), precision(q.outside.dtype), q.kept)


def cell_of_loop(q: Recurrence) -> type[Cell]:
    """The cell that the loop runs for a recurrence. A projection becomes one of the cell's products."""
    projected = q.weights[0].hr is not None
    return transformed(q.cell, f"projection({q.states[0].shape[-1]})") if projected else q.cell


class LayerCall:
    """A recurrence as kernels read it: contiguous tensors of the kernels' dtype. Its input is projected outside the
    loop, or ``inside``."""

    cell: type[Cell]
    storage: torch.dtype
    reverse: Callable[[int], bool]
    working: torch.dtype
    precision: str
    dtype: torch.dtype
    kernels: Compiled
    kept: tuple[str, ...]
    steps: int
    batch: int
    directions: int
    projected: int
    hidden: int
    output_width: int
    sizes: dict[str, int]
    states: list[Tensor]
    weights: list[Weights]
    lengths: Tensor | None
    reset: Tensor | None
    reset_states: list[Tensor] | None
    streams: dict[str, Tensor]

    def __init__(self, q: Recurrence, inside: bool = False, kernels: Compiled | None = None) -> None:
        x = q.outside
        self.cell, self.storage, self.reverse = q.cell, x.dtype, q.reversed
        self.working, self.precision = WORKING_DTYPE.get(x.dtype, x.dtype), precision(x.dtype)
        self.dtype = PRECISIONS[self.precision]
        self.kernels, self.kept = kernels_of(q) if kernels is None else kernels, q.kept
        self.steps, self.batch = x.shape[:2]
        self.directions, _, self.state_width = q.states[0].shape
        self.hidden, self.output_width = q.hidden, q.width(q.output)
        self.sizes = {**q.sizes, "P": self.state_width} if q.weights[0].hr is not None else q.sizes
        self.states = [self.plain(state) for state in q.states]
        weights = [w if inside else w.recurrent for w in q.weights]
        self.weights = [w.replaced([self.plain(tensor) for tensor in w.present()]) for w in weights]
        self.lengths = None if q.lengths is None else q.lengths.to(torch.int64).contiguous()
        self.reset = None if q.reset is None else q.reset.contiguous()
        self.reset_states = None if q.reset_states is None else [self.plain(state) for state in q.reset_states]
        self.streams = {name: self.plain(stream) for name, stream in q.streams.items()}
        if "input" in q.cell.streams and q.input is not None:
            self.streams["input"] = self.plain(q.input).expand(self.directions, *q.input.shape)
        self._features, self._widths_of_kept = q.input.shape[2] if inside else 0, [q.width(name) for name in q.kept]

    def given(self, d: int) -> dict[str, Tensor | None]:
        """The arrays of a direction that both passes read."""
        found: dict[str, Tensor | None] = {"lengths": self.lengths, "reset": self.reset}
        found |= self.by_state("initial", self.states, d) | self.by_state("reset_state", self.reset_states, d)
        return found | named(self.cell, self.weights[d]) | {f"x.{k}": stream[d] for k, stream in self.streams.items()}

    def by_state(self, name: str, states: Sequence[Tensor] | None, d: int) -> dict[str, Tensor | None]:
        """A direction's part of the states, as ``initial.h`` and so on."""
        return {f"{name}.{s}": each[d] for s, each in zip(self.cell.states, states or (), strict=states is not None)}

    def circumstances(self, d: int) -> list[int]:
        """The fields of a direction: whether it is reversed, the number of threads, and whether arrays are bfloat16."""
        return [int(self.reverse(d)), threads(), int(self.dtype == torch.bfloat16)]

    def widths(self) -> dict[str, int]:
        """The number of elements from row to row of each array over all steps."""
        gates, output = self.directions * len(self.cell.gates) * self.hidden, self.directions * self.output_width
        found = {"gates_x": gates, "grad_gates_x": gates, "output": output, "grad_output": output}
        found |= {
            f"{grad}kept.{name}": width for grad in ("", "grad_") for name, width in self.widths_of_kept().items()
        }
        for name, stream in self.streams.items():
            width = stream.shape[3] if stream.dim() == 4 else 1
            found |= {f"x.{name}": width, f"grad_x.{name}": width}
        return found | {"previous": self.state_width} | self.keeps() | self.makes()

    def widths_of_kept(self) -> dict[str, int]:
        """The widths of the ``kept`` values of all steps, by name."""
        return {name: self.directions * width for name, width in zip(self.kept, self._widths_of_kept, strict=True)}

    def keeps(self) -> dict[str, int]:
        """The arrays over all steps that forward leaves for backward, besides the output, with their widths."""
        return self.kernels.keeps(self.sizes)

    def makes(self) -> dict[str, int]:
        """The arrays that backward leaves for the weights' gradients, besides the gates' gradient, with their
        widths."""
        return self.kernels.makes(self.sizes)

    def fields(self, backward: bool, features: int | None = None) -> list[int]:
        """The fields of all directions, without addresses. ``features``: the features of an input that the loop
        projects."""
        widths, flat = self.widths(), []
        for d in range(self.directions):
            own = self.kernels.fields(self, d, widths, backward)
            own[self.kernels.places[backward]["features"]] = self._features if features is None else features
            flat += own
        return flat

    def run(self, backward: bool, directions: Sequence[Arrays]) -> None:
        """Run a pass over all directions. Each direction has its own arrays besides the `given` arrays."""
        fields, places = self.fields(backward), self.kernels.places[backward]
        for d, arrays in enumerate(directions):
            first = d * self.kernels.count
            for name, tensor in (self.given(d) | arrays).items():
                if tensor is not None and name in places:
                    fields[first + places[name]] = tensor.data_ptr()
        self.kernels.run(fields, backward)

    def plain(self, tensor: Tensor) -> Tensor:
        return tensor if tensor.dtype == self.dtype and tensor.is_contiguous() else tensor.to(self.dtype).contiguous()

    def empty(self, *shape: int) -> Tensor:
        return pooled(shape, self.dtype)

    def empty_output(self) -> Tensor:
        return self.empty(self.steps, self.batch, self.directions * self.output_width)

    def empty_states(self) -> list[Tensor]:
        return [torch.empty_like(state) for state in self.states]

    def working_like(self, tensor: Tensor) -> Tensor:
        """An empty contiguous tensor of the working dtype, of the tensor's shape whatever its strides."""
        return torch.empty_like(tensor, dtype=self.working, memory_format=torch.contiguous_format)

    def each(self, tensor: Tensor) -> list[Tensor]:
        """The parts of a tensor whose directions lie side by side in the last axis."""
        return list(tensor.chunk(self.directions, -1)) if self.directions > 1 else [tensor]

    def stored(self, tensor: Tensor) -> Tensor:
        return tensor if tensor.dtype == self.storage else tensor.to(self.storage)

    def hidden_before(self, output: Tensor, d: int) -> Tensor:
        """The hidden state (T, B, P) that each step's product read."""
        hidden, reverse = self.states[0][d : d + 1], self.reverse(d)
        before = self.empty(*output.shape)
        torch.cat([output[1:], hidden] if reverse else [hidden, output[:-1]], out=before)
        valid = None if self.lengths is None else valid_steps(self.lengths, self.steps)
        if valid is not None and reverse:
            # Reversed rows begin at their last valid step; before that they have steps whose output is zero.
            before = torch.where(torch.cat([valid[1:], torch.zeros_like(valid[:1])]).unsqueeze(-1), before, hidden)
        if self.reset is not None:
            reset_state = torch.zeros_like(hidden) if self.reset_states is None else self.reset_states[0][d]
            before = torch.where(boundaries(self.reset, valid, reverse).unsqueeze(-1), reset_state, before)
        return before


def named(cell: type[Cell], weights: Weights[Any]) -> dict[str, Any]:
    """A direction's weights that exist, or the objects in their places, by the names of their roles."""
    fixed = zip(("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr"), weights, strict=False)
    return {name: each for name, each in fixed if each is not None} | weights.named(cell)


def row_blocks(cell: type[Cell], weight: str) -> int:
    """The number of row blocks of a product's weight."""
    product = cell.every_product.get(weight.removeprefix("weight_"))
    return 1 if product is None else len(product.rows)


def several_steps(q: Recurrence) -> bool:
    """Whether the input of a differentiable call is best projected by a product outside the loop. For a single step it
    is not. The loop's product reads the weights no more often, and the order of sums must not depend on the caller."""
    return q.outside.shape[0] > 1
