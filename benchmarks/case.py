"""A case: one suite, cell, shape and dtype on one device, and the numbers that every provider gets for it."""

import math
import zlib
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear

from seqcells.cells import REGISTRY, Cell
from seqcells.request.weights import Weights

from .shapes import Shape
from .suites import SUITES, Suite, label

DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "tf32": torch.float32,  # CUDA only: float32 whose products may be TF32, torch's default for recurrent layers
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


class Inputs(NamedTuple):
    """One set of inputs, for T time steps of B sequences."""

    x: Tensor
    """(T, B, features)"""
    gates_x: Tensor | None
    """(T, B, G·H): W_ih x + b_ih, for suites that give it."""
    grad: Tensor | None
    """(T, B, H): the gradient of the output, for suites with gradients."""
    lengths: Tensor | None
    """(B,) on the CPU, as torch.nn's packing expects lengths."""


@dataclass(frozen=True)
class Case:
    """What is measured. `weights` and `inputs` give the same numbers in every process."""

    suite_name: str
    cell_name: str
    shape: Shape
    dtype_name: str = "float32"
    device: str = "cpu"
    load: float = 0
    """Busy processes for each usable core while the case is timed."""

    @property
    def suite(self) -> Suite:
        return SUITES[self.suite_name]

    @property
    def cell(self) -> type[Cell]:
        return REGISTRY[self.cell_name]

    @property
    def dtype(self) -> torch.dtype:
        return DTYPES[self.dtype_name]

    @property
    def features(self) -> int:
        return self.suite.features(self.shape)

    def __str__(self) -> str:
        return f"{label(self.suite_name, self.load)} {self.cell_name} {self.shape} {self.dtype_name}"

    def roles(self) -> tuple[str, ...]:
        """The roles of a layer's parameters in one direction."""
        return Weights.roles(self.cell, bias=True, projection=False)

    def places(self) -> list[str]:
        """The suffixes that torch.nn appends to a role, one for each layer and direction."""
        ways = ("", "_reverse")[: self.suite.directions]
        return [f"_l{layer}{way}" for layer in range(self.suite.layers) for way in ways]

    def parameters(self) -> list[str]:
        """The names of all parameters, as torch.nn's module names and orders them."""
        return [role + place for place in self.places() for role in self.roles()]

    def weights(self) -> Weights:
        """The weights of the first layer and direction, drawn from torch.nn's distribution."""
        return self.stack()[0]

    def stack(self) -> list[Weights]:
        """The weights of all layers; a layer's directions are neighbours. The first element is `weights`."""
        bound = 1 / math.sqrt(self.shape.hidden)
        random = self._generator("weights")

        def draw(features: int) -> Weights:
            shapes = [Weights.shape(role, self.cell, features, self.shape.hidden, 0) for role in self.roles()]
            tensors = [torch.empty(s, device=self.device).uniform_(-bound, bound, generator=random) for s in shapes]
            return Weights.of(self.roles(), [tensor.to(self.dtype) for tensor in tensors])

        directions = self.suite.directions
        widths = [self.features] + [directions * self.shape.hidden] * (self.suite.layers - 1)
        return [draw(width) for width in widths for _ in range(directions)]

    def inputs(self, weights: Weights, count: int = 1) -> list[Inputs]:
        """Draw ``count`` sets of inputs, each in its own memory."""
        batch, hidden, steps = self.shape
        random = self._generator("inputs")

        def draw(features: int) -> Tensor:
            return torch.randn(steps, batch, features, device=self.device, generator=random).to(self.dtype)

        sets = []
        for _ in range(count):
            x = draw(self.features)
            grad = draw(hidden * self.suite.directions) if self.suite.gradients else None
            gates_x = linear(x, weights.ih, weights.bias_ih) if self.suite.projected else None
            lengths = None
            if self.suite.lengths:
                lengths = torch.linspace(max(1, steps / 10), steps, batch).round().long()
                lengths = lengths[torch.randperm(batch, generator=torch.Generator().manual_seed(0))]
                # The padding gets no gradient, so that results do not depend on what a provider writes to the padding.
                grad = grad * (torch.arange(steps)[:, None] < lengths).to(grad)[..., None]
            sets.append(Inputs(x, gates_x, grad, lengths))
        return sets

    def zero_states(self) -> tuple[Tensor, ...]:
        """The initial states, each (B, H)."""
        size = (self.shape.batch, self.shape.hidden)
        return tuple(torch.zeros(size, dtype=self.dtype, device=self.device) for _ in self.cell.states)

    def _generator(self, what: str) -> torch.Generator:
        seed = zlib.crc32(f"{what} {self.cell_name} {self.shape}".encode())
        return torch.Generator(self.device).manual_seed(seed)
