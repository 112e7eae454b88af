"""A model of another package, and its training step."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from torch import Tensor, nn

PACKAGES = {
    "torchrl": "torchrl",
    "sb3_contrib": "sb3-contrib",
    "pytorch_forecasting": "pytorch-forecasting",
    "speechbrain": "speechbrain",
    "fastai": "fastai",
    "gluonts": "gluonts",
    "pfrl": "pfrl",
    "rsl_rl": "rsl-rl-lib",
}
"""The names of distributions, by the module here that has the package's cases."""
Step = Callable[[], Tensor | float]
"""A step that trains once, on the same batch, and returns the loss."""


@dataclass(frozen=True)
class Case:
    """A model, and what trains it."""

    name: str
    make: Callable[[], tuple[nn.Module, Callable[[], Step]]]
    """Makes, from torch's random state, a module whose layers are swapped, and a function that prepares the step
    afterwards."""
    adapted: bool = False
    """Whether an adapter of `seqcells.io` calls the layers."""


def cases(package: str) -> list[Case]:
    """The cases of a package; its module is imported."""
    return import_module(f"{__package__}.{package}").CASES


def descent(module: nn.Module, loss: Callable[[], Tensor], rate: float = 1e-3) -> Step:
    """A step of stochastic gradient descent."""
    parameters = [p for p in module.parameters() if p.requires_grad]

    def step() -> float:
        for parameter in parameters:
            parameter.grad = None
        value = loss()
        value.backward()
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.data.add_(parameter.grad, alpha=-rate)
        return value.item()

    return step
