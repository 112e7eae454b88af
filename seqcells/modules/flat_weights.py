"""The list of weights that torch.nn's layers keep beside their parameters, and that some of their users write to."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn


class FlatWeights(NamedTuple):
    """A layer's ``_flat_weights`` from the moment that somebody looks at it or assigns it.

    As in torch.nn its entries, not the parameters, are what the layer multiplies: until a parameter's place is taken
    by another tensor, when all entries are read anew.
    """

    weights: list[Tensor | None]
    attributes: Sequence[Tensor | None]
    """What the layer's attributes were then, in the same order; None for those that there were not."""

    @staticmethod
    def of(attributes: Sequence[Tensor | None], weights: list[Tensor | None] | None = None) -> FlatWeights:
        """The list of a layer with such attributes. ``weights`` are what was assigned. Default: the attributes"""
        return FlatWeights(list(attributes) if weights is None else weights, tuple(attributes))

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy takes the entries for its attributes, as torch.nn's does: where they are not, they are read anew.
        return FlatWeights.of, (self.weights,)

    def hold(self, attributes: Sequence[Tensor | None]) -> bool:
        """Whether no attribute's place was taken by another. One that was deleted leaves its entry in use."""
        pairs = zip(self.attributes, attributes, strict=True)
        return all(now is None or now is before for before, now in pairs)


def attributes(module: nn.Module, names: Sequence[str]) -> list[Tensor | None]:
    """The module's, by name, None for those that there are not."""
    return [getattr(module, name, None) for name in names]


def read(module: nn.Module, names: Sequence[str]) -> list[Tensor]:
    """The module's weights, by name.

    A parametrization with buffers may take a step whenever it is read in training, as spectral_norm does. It is read
    as often as torch.nn's layers read it: all twice, and the first of them twice more.

    Raises:
        AttributeError: for a weight that there is not.
    """
    own = module._modules.get("parametrizations") if module.training else None
    if isinstance(own, nn.ModuleDict):
        parametrized = [name for name in names if name in own]
        for name in (*parametrized[:1] * 2, *parametrized):
            if next(own[name].buffers(), None) is not None:
                getattr(module, name)
    return [getattr(module, name) for name in names]


def stored(module: nn.Module, name: str) -> Tensor | None:
    """A weight where it is stored: of a parametrized one a tensor that it is made of. Nothing is evaluated."""
    own = module._modules.get("parametrizations")
    if isinstance(own, nn.ModuleDict) and name in own:
        return next(itertools.chain(own[name].parameters(), own[name].buffers()))
    parameter = module._parameters.get(name)
    return vars(module).get(name) if parameter is None else parameter
