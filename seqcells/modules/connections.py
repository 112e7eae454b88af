"""Modules and functions between the layers of a stack: residual and highway connections, merges of two directions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class Residual(nn.Module):
    """A layer's output plus its input (He et al. 2015, arXiv:1512.03385).

    If input and output differ in size, the input is multiplied by a learnt matrix, ``carry.weight`` (units, features).

    Args:
        features: number of features of the layer's input.
        units: number of units of the layer's output.
        device, dtype: device and dtype of the parameters.
    """

    def __init__(self, features: int, units: int, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        self.carry: nn.Module = nn.Identity()
        if features != units:
            self.carry = nn.Linear(features, units, bias=False, device=device, dtype=dtype)

    def forward(self, input: Tensor, output: Tensor) -> Tensor:
        """The layer's input (…, features) and its output (…, units) → (…, units)."""
        return output + self.carry(input)


class Highway(Residual):
    """A learnt mixture of a layer's output and input (Srivastava et al. 2015, arXiv:1505.00387).

        t·output + (1 - t)·input with t = σ(W·input + b)

    Arguments: see `Residual`. ``gate.weight`` is W (units, features), ``gate.bias`` is b (units,). b is initialised to
    -1, so that at first the input has more weight than the output.
    """

    def __init__(self, features: int, units: int, device: Any = None, dtype: Any = None) -> None:
        super().__init__(features, units, device, dtype)
        self.gate: nn.Linear = nn.Linear(features, units, device=device, dtype=dtype)
        nn.init.constant_(self.gate.bias, -1.0)

    def forward(self, input: Tensor, output: Tensor) -> Tensor:
        """The layer's input (…, features) and its output (…, units) → (…, units)."""
        carried, share = self.carry(input), torch.sigmoid(self.gate(input))
        return carried + share * (output - carried)


CONNECTIONS: dict[str, type[Residual]] = {"residual": Residual, "highway": Highway}

MERGES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "sum": torch.add,
    "mul": torch.mul,
    "average": lambda forward, backward: (forward + backward) / 2,
}
"""Functions that merge the outputs of two directions, by name. Concatenation is not among them."""


def merged(way: str, output: Tensor) -> Tensor:
    """The merged output (…, units) of two directions' output (…, 2·units). ``"concat"`` returns it unchanged."""
    return output if way == "concat" else MERGES[way](*output.chunk(2, -1))
