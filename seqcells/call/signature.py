"""The signature of a call. Calls with equal signatures need the same checks and get the same backend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from ..cells import Cell


class CellModule(Protocol):
    """The attributes of a layer or cell module that a signature reads. `modules.freezing.Freezable` has them."""

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
    """torch.compile's check of tensors in C++, or None if this torch has no such check, which is not public.

    ``guard.check(*others)`` tells whether other tensors have the same types, shapes, strides, dtypes and devices. No
    tensor may occur twice.
    """
    try:
        guards = torch._C._dynamo.guards  # pyright: ignore[reportAttributeAccessIssue]  # not in torch's stubs
        return guards.TensorGuards(*tensors, dynamic_dims_sizes=None, dynamic_dims_strides=None)
    except (AttributeError, TypeError):
        return None


class Signature(NamedTuple):
    """The signature of a call of a module: calls with the same signature get the same checks and the same backend.

    Their tensors have the same types, shapes, strides, dtypes and devices. No tensor is transformed or traced, and all
    other facts that the choice depends on are unchanged. Addresses and values of the tensors may differ.
    """

    options: tuple[Any, ...]
    names: tuple[str, ...]
    """The names of all parameters. They detect pruning, which renames a parameter."""
    tensor_count: int
    twins: tuple[tuple[int, int], ...]
    """Pairs of positions that hold the same tensor, such as two states given as one tensor of zeros."""
    guard: Any
    """The check of `guard` for the distinct tensors."""

    @staticmethod
    def of(module: CellModule, tensors: Sequence[Tensor], *options: Any) -> Signature | None:
        """The signature of a call. None if torch lacks the check of tensors; then no call is prepared."""
        first: dict[int, int] = {}
        twins = [(k, first[id(t)]) for k, t in enumerate(tensors) if first.setdefault(id(t), k) != k]
        once = [tensors[k] for k in first.values()]
        check = guard(once)
        if check is None:
            return None
        return Signature(options, tuple(module._parameters), len(tensors), tuple(twins), check)

    def fits(self, module: CellModule, tensors: Sequence[Tensor], *options: Any) -> bool:
        if self.options != options or self.names != tuple(module._parameters) or self.tensor_count != len(tensors):
            return False
        if self.twins:
            if any(tensors[k] is not tensors[first] for k, first in self.twins):
                return False
            again = {k for k, _ in self.twins}
            tensors = [tensor for k, tensor in enumerate(tensors) if k not in again]
        return self.guard.check(*tensors)
