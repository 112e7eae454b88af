"""The three modules of a case: our layer of a cell, a loop in torch with the same weights, and our LSTM."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import seqcells
from seqcells import cells
from seqcells.cells import BUILT_IN, LIBRARY, Cell

from ..shapes import Shape
from .torchrecurrent_cells import THEIRS, Theirs

REFERENCE = "reference"
"""The rival of a cell that torchrecurrent does not have: our own loop of the cell's equations in torch."""
PACKAGE = "torchrecurrent"
ERROR = 2e-3
"""The largest relative error of a whole float32 result. Rounding errors add up over time steps, and some cells are
chaotic."""


def every_name() -> list[str]:
    """The class names of all cells, in alphabetical order."""
    return sorted([*(cell.__name__ for cell in BUILT_IN.values()), *LIBRARY], key=str.lower)


def cell_named(name: str) -> type[Cell]:
    """The cell whose class has this name."""
    found: type[Cell] = next((c for c in BUILT_IN.values() if c.__name__ == name), None) or getattr(cells, name)
    return found


@dataclass
class Trio:
    """Three modules that get the same input."""

    ours: nn.Module
    rival: nn.Module
    rival_name: str
    lstm: nn.Module
    input: Tensor
    """(T, B, H)"""
    grad: Tensor
    """(T, B, ·): the gradient of the output."""
    streams: dict[str, Tensor]

    def call(self, who: str) -> Callable[[], Tensor]:
        """An inference call of the module with this name."""
        module, streams = getattr(self, who), self._streams(who)

        def run() -> Tensor:
            with torch.no_grad():
                output: Tensor = module(self.input, **streams)[0]
            return output

        return run

    def training(self, who: str) -> Callable[[], list[Tensor]]:
        """A forward and backward call, which returns the gradients of the input, first, and of all parameters."""
        module, streams = getattr(self, who), self._streams(who)
        input = self.input.clone().requires_grad_()
        leaves = [input, *(p for p in module.parameters() if p.requires_grad)]
        grad = torch.ones(()).expand(*self.grad.shape[:2], module.hidden_size) if who == "lstm" else self.grad

        def run() -> list[Tensor]:
            output = module(input, **streams)[0]
            return list(torch.autograd.grad(output, leaves, grad, allow_unused=True))

        return run

    def _streams(self, who: str) -> dict[str, Tensor]:
        return {} if who == "lstm" or (who == "rival" and self.rival_name == PACKAGE) else self.streams

    def error(self, gradients: bool) -> float:
        """The relative error of our output, or of our input gradient, against the rival's, by norms."""
        if gradients:
            ours, theirs = (self.training(who)()[0] for who in ("ours", "rival"))
        else:
            ours, theirs = (self.call(who)() for who in ("ours", "rival"))
        return float((ours - theirs).norm() / theirs.norm().clamp_min(1e-30))


def trio(name: str, shape: Shape) -> Trio:
    """The modules of a case; the input has as many features as the layer has hidden units."""
    torch.manual_seed(0)
    batch, hidden, steps = shape
    cell = cell_named(name)
    theirs = next((each for each in THEIRS if each.cell == cell.name), None)
    options = dict(theirs.options) if theirs else {}
    options |= {option: hidden for option, value in cell.options.items() if value is None}
    layer = seqcells.define(cell)[0](hidden, hidden, **options)
    rival = _package(theirs, layer) if theirs else _reference(layer)
    streams = {
        stream: torch.rand(steps, batch, *(hidden for _ in axes[2:])).round(decimals=0 if stream == "mask" else 6)
        for stream, axes in layer.cell.streams.items()
        if stream != "input"
    }
    grad = torch.randn(steps, batch, layer.output_size)
    lstm = seqcells.LSTM(hidden, hidden)
    rival_name = PACKAGE if theirs else REFERENCE
    return Trio(layer, rival, rival_name, lstm, torch.randn(steps, batch, hidden), grad, streams)


def _reference(layer: nn.Module) -> nn.Module:
    rival = copy.deepcopy(layer)
    rival.backend = "reference"
    return rival


def _package(theirs: Theirs, layer: Any) -> nn.Module:
    """The rival package's layer with our weights. Parameters that its cell lacks are set to zero in ours."""
    import torchrecurrent

    with torch.no_grad():
        if theirs.zeros:
            weight, block, blocks = theirs.zeros
            getattr(layer, f"{weight}_l0").chunk(blocks)[block].zero_()
        made = theirs.weights({name.removesuffix("_l0"): v.detach() for name, v in layer.named_parameters()})
    rival: nn.Module = getattr(torchrecurrent, theirs.name)(layer.input_size, layer.hidden_size, **theirs.arguments)
    own = {key for key, _ in (*rival.cells[0].named_parameters(), *rival.cells[0].named_buffers())}
    rival.cells[0].load_state_dict({key: v for key, v in made.items() if key in own})
    return rival
