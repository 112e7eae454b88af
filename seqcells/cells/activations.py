"""The functions a cell's equations may use, each defined once.

An activation is called on whatever `step` is run on: on a tensor it is torch's own function; on anything
else (a symbol, when kernels are derived) the value decides, through its `apply` method.
"""

from collections.abc import Callable
from typing import Any

import torch


class Activation:
    """A named elementwise function."""

    def __init__(self, name: str, tensor: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self.name = name
        self.tensor = tensor

    def __call__(self, value: Any) -> Any:
        return self.tensor(value) if isinstance(value, torch.Tensor) else value.apply(self)

    def __repr__(self) -> str:
        return self.name


sigmoid = Activation("sigmoid", torch.sigmoid)
tanh = Activation("tanh", torch.tanh)
relu = Activation("relu", torch.relu)
