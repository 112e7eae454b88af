"""The list ``_flat_weights`` that torch.nn's layers keep beside their parameters, and that some users write to."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn


class FlatWeights(NamedTuple):
    """A layer's ``_flat_weights``, which exists from the first time that a user reads or assigns it.

    As in torch.nn, the layer then multiplies by the list's entries instead of the parameters. When another tensor
    replaces a parameter, all entries are read from the parameters again.
    """

    weights: list[Tensor | None]
    attributes: Sequence[Tensor | None]
    """The layer's weight attributes at that time, in the same order. None stands for a missing attribute."""

    @staticmethod
    def of(attributes: Sequence[Tensor | None], weights: list[Tensor | None] | None = None) -> FlatWeights:
        """The list for a layer with these attributes. ``weights``: the assigned list. Default: the attributes"""
        return FlatWeights(list(attributes) if weights is None else weights, tuple(attributes))

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy takes the entries as its attributes, as in torch.nn. If they are not, `hold` has them read again.
        return FlatWeights.of, (self.weights,)

    def hold(self, attributes: Sequence[Tensor | None]) -> bool:
        """Whether no attribute was replaced by another tensor. The entry of a deleted attribute stays in use."""
        pairs = zip(self.attributes, attributes, strict=True)
        return all(now is None or now is before for before, now in pairs)


def attributes(module: nn.Module, names: Sequence[str]) -> list[Tensor | None]:
    """The module's attributes with the given names, with None for a missing attribute."""
    return [getattr(module, name, None) for name in names]


def read(module: nn.Module, names: Sequence[str]) -> list[Tensor]:
    """The module's weights with the given names.

    A parametrization with buffers, such as spectral_norm, may change its buffers at each read in training. So each one
    is read as often as in torch.nn's layers: all twice, and the first of them twice more.

    Raises:
        AttributeError: a weight is missing.
    """
    own = module._modules.get("parametrizations") if module.training else None
    if isinstance(own, nn.ModuleDict):
        parametrized = [name for name in names if name in own]
        for name in (*parametrized[:1] * 2, *parametrized):
            if next(own[name].buffers(), None) is not None:
                getattr(module, name)
    return [getattr(module, name) for name in names]


def stored(module: nn.Module, name: str) -> Tensor | None:
    """The stored tensor of a weight. For a parametrized weight: the first tensor it is made from, unevaluated."""
    own = module._modules.get("parametrizations")
    if isinstance(own, nn.ModuleDict) and name in own:
        return next(itertools.chain(own[name].parameters(), own[name].buffers()))
    parameter = module._parameters.get(name)
    return vars(module).get(name) if parameter is None else parameter
