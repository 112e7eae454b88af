"""Types of the modules for type checkers. At run time only the aliases exist."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Generic, Protocol, overload

M = TypeVar("M", bound=nn.Module)
S_co = TypeVar("S_co", covariant=True)

States = Tensor | tuple[Tensor, ...]
"""The states of a module: a tensor or, for cells of several states, a tuple of tensors."""

if TYPE_CHECKING:

    class OfStates(Protocol[S_co]):
        """A module whose class declares the type of its states. The types of its calls follow from it."""

        @property
        def _form_of_states(self) -> S_co: ...

    class Modules(nn.ModuleList, Generic[M]):
        """A list of modules of one class."""

        def __iter__(self) -> Iterator[M]: ...

        @overload
        def __getitem__(self, idx: slice) -> Modules[M]: ...
        @overload
        def __getitem__(self, idx: int) -> M: ...
        def __getitem__(self, idx: Any) -> Any: ...
