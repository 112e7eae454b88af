"""Whether a call is like another one, so that what was checked and chosen for that one holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from ..cells import Cell


class CellModule(Protocol):
    """A module of a cell, as far as calls that are alike look at it: `seqcells.modules.freezing.Freezable` is one."""

    backend: str
    batch_first: bool
    training: bool
    _frozen: int
    _parameters: dict[str, nn.Parameter | None]
    _load_state_dict_post_hooks: dict[int, Any]

    @property
    def cell(self) -> type[Cell]: ...

    def _assigned(self) -> Sequence[Tensor | None] | None: ...


def guard(tensors: Sequence[Tensor]) -> Any:
    """torch.compile's own check of tensors, in C++: ``guard.check(*others)`` is whether others have the same types,
    shapes, strides, dtypes and devices. It wants each but once. None where torch has none: it is no public one."""
    try:
        guards = torch._C._dynamo.guards  # pyright: ignore[reportAttributeAccessIssue]  # not in torch's stubs
        return guards.TensorGuards(*tensors, dynamic_dims_sizes=None, dynamic_dims_strides=None)
    except (AttributeError, TypeError):
        return None


class Likeness(NamedTuple):
    """What calls of a module have in common whose checks and choice come out the same.

    Their tensors have the same types, shapes, strides, dtypes and devices, none is transformed or traced in any way,
    and nothing else has changed that a choice depends on. Where the tensors lie, and what is in them, may differ.
    """

    options: tuple[Any, ...]
    names: tuple[str, ...]
    """Of all parameters: pruning leaves another under a new one."""
    tensor_count: int
    twins: tuple[tuple[int, int], ...]
    """Of those that are one and the same, such as states that begin with the same zeros, the places."""
    guard: Any
    """Of the tensors, each but once."""

    @staticmethod
    def of(module: CellModule, tensors: Sequence[Tensor], *options: Any) -> Likeness | None:
        """That of a call; None where torch cannot check tensors so, and nothing is prepared."""
        first: dict[int, int] = {}
        twins = [(k, first[id(t)]) for k, t in enumerate(tensors) if first.setdefault(id(t), k) != k]
        once = [tensors[k] for k in first.values()]
        check = guard(once)
        if check is None:
            return None
        return Likeness(options, tuple(module._parameters), len(tensors), tuple(twins), check)

    def fits(self, module: CellModule, tensors: Sequence[Tensor], *options: Any) -> bool:
        if self.options != options or self.names != tuple(module._parameters) or self.tensor_count != len(tensors):
            return False
        if self.twins:
            if any(tensors[k] is not tensors[first] for k, first in self.twins):
                return False
            again = {k for k, _ in self.twins}
            tensors = [tensor for k, tensor in enumerate(tensors) if k not in again]
        return self.guard.check(*tensors)
