"""What lies between the layers of a stack: residual and highway connections, the sum of two directions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class Residual(nn.Module):
    """Output plus input of a layer (He et al. 2015, arXiv:1512.03385); between layers of different sizes the input
    times a learnt matrix, ``carry.weight`` (units, features).

    Args:
        features: those of the layer's input.
        units: those of its output.
        device, dtype: of the parameters.
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
    """A learnt mixture of output and input of a layer, t·output + (1 - t)·input with t = σ(W·input + b) (Srivastava et
    al. 2015, arXiv:1505.00387); arguments as `Residual`.

    ``gate.weight`` is W (units, features). b begins at -1, so that at first more of the input is carried.
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
"""What may be made of the outputs of two directions besides their concatenation, by name."""


def merged(way: str, output: Tensor) -> Tensor:
    """One output (…, units) of the two directions' (…, 2·units); ``"concat"`` leaves them as they are."""
    return output if way == "concat" else MERGES[way](*output.chunk(2, -1))
