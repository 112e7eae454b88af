"""What type checkers are told of the modules, and nobody else is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Generic, Protocol, overload

M = TypeVar("M", bound=nn.Module)
S_co = TypeVar("S_co", covariant=True)

States = Tensor | tuple[Tensor, ...]
"""A tensor or, of cells of several states, a tuple."""

if TYPE_CHECKING:

    class OfStates(Protocol[S_co]):
        """A module whose class says of which form its states are, so that its calls are typed by it."""

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
