"""What this package's modules have in common: weights that may be kept as kernels multiply them, and prepared calls."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, cast

from torch import Tensor, nn
from torch.nn.modules.module import _global_forward_hooks, _global_forward_pre_hooks

from .. import cells
from ..backends import check_name
from ..call.prepared import Prepared
from ..request import checks
from ..request.weights import Weights

if TYPE_CHECKING:
    from typing_extensions import Self

_CALL = nn.Module.__call__


def is_plain(module: Freezable, call: Callable[..., Any] = _CALL) -> bool:
    """Whether a call of the module is a call of this package's ``forward`` and of nothing besides.

    Args:
        call: what torch's modules have as ``__call__``, which torch.fx replaces. Default: what torch came with
    """
    kind, own = type(module), module.__dict__
    hooks = own["_forward_hooks"] or own["_forward_pre_hooks"] or _global_forward_hooks or _global_forward_pre_hooks
    return kind.forward is kind._forward and kind.__call__ is call and "forward" not in own and not hooks


class Freezable(nn.Module):
    """A module of a cell, whose weights may be kept in the form that its kernels multiply."""

    cell: type[cells.Cell]
    torch_class: ClassVar[type[nn.Module] | None]
    """torch.nn's class for the same cell, if it has one."""
    _forward: ClassVar[Callable[..., Any]]
    backend: str
    batch_first: bool
    _prepared: Prepared
    _roles: tuple[str, ...]

    _frozen = 0
    """How often the module was frozen, 0 while it is not."""
    _freezings = 0
    _own_state: ClassVar = ("_freezings", "_frozen", "_prepared", "_roles", "backend", "initial")
    """The names of those that `_settle` sets, and of what comes to them later."""
    initial: Mapping[str, float] = MappingProxyType({})
    """Initial values of the module's own, by the names that `Cell.initial` has."""
    _options: str = ""
    """The cell's options as its name spells them: a file names no class that is made as a program runs."""
    _declared: type[cells.Cell]
    """The cell as the class states it, where it has options."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cell = vars(cls).get("cell")
        if cell is None or isinstance(cell, property):
            return
        if not (isinstance(cell, type) and issubclass(cell, cells.Cell)):
            raise TypeError(f"cell of {cls.__name__} should be a class of seqcells.cells.Cell, got {cell!r}")
        cells.register(cell)  # graphs find it by its name
        cls._options, cls._declared = cell.words, cell
        if cell.options:
            # Of the class it is the cell, of a module what its options make of that.
            cls.cell = cast("type[cells.Cell]", property(lambda module: cell.configurations[module._options]))

    def _configure(self, options: dict[str, Any], hidden_size: int) -> None:
        """Take the cell with such options.

        Raises:
            TypeError: it has no such option, or none of such a kind; or an option without a default is not given.
            ValueError: a size is none, or heads do not divide the hidden units.
        """
        for name in options:
            if name not in self.cell.options:
                raise TypeError(f"{type(self).__name__} got an unexpected keyword argument {name!r}")
        if options:
            self._options = self.cell.configured(**options).words
        checks.cell(self.cell)
        checks.sizes(self.cell, hidden_size)

    def _initialise(self, names: Iterable[tuple[str, str]]) -> None:
        """Set the initial values that the cell says, and the module's own; ``names`` are roles and the parameters that
        are in them."""
        initial = {**self.cell.initial_values(), **self.initial}
        if initial:
            for role, name in names:
                parameter = self._parameters.get(name)
                if parameter is not None:
                    Weights.initialise(role, self.cell, parameter, initial)

    def _take_initial(self, initial: Mapping[str, float] | None, roles: Iterable[str]) -> None:
        """Take initial values of rows, scalars and biases; ``roles`` are those of the parameters that there are.

        Raises:
            ValueError: there is no such row, scalar or bias.
            TypeError: a value is no number.
        """
        known = [row for role in roles for row in self.cell.rows_of(role)]
        for name, value in (initial or {}).items():
            if name not in known:
                raise ValueError(f"initial has {name!r}, which is none of this module's: {', '.join(known)}")
            if not isinstance(value, numbers.Real):
                raise TypeError(f"initial should have numbers, got {value!r} for {name!r}")
        if initial:
            self.initial = dict(initial)

    def _beyond_torch(self) -> list[str]:
        """The names of options in use that torch.nn's module for the same cell has not."""
        return []

    def _told_options(self) -> str:
        """For a module's representation."""
        return "".join(f", {word}" for word in self._options.split(",") if word)

    def _settle(self, backend: str) -> None:
        """Set the attributes that torch.nn's module for the same cell has not; it has all others."""
        self.backend = check_name(backend)
        self._begin_anew()

    def _begin_anew(self) -> None:
        """Forget what is prepared."""
        self._prepared = Prepared()

    def _sizes(self) -> dict[str, tuple[int, ...]]:
        """Of the weights that it must have, by name, in the order of registration."""
        raise NotImplementedError

    def _assigned(self) -> list[Tensor | None] | None:
        """What is multiplied instead of the parameters, in their order, if anything is."""

    def __getstate__(self) -> dict[str, Any]:
        # What is prepared is for this process and these parameters: copies begin anew, and files are of torch's types.
        return {name: value for name, value in super().__getstate__().items() if name != "_prepared"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._begin_from_state()

    def _begin_from_state(self) -> None:
        """What is to be done once a copy, or a module of a file, has its attributes."""
        if self._options:
            self._declared.with_words(self._options)
        self._begin_anew()

    def freeze(self) -> Self:
        """Promise that the weights stay as they are, so that inference calls need not pack them each time.

        The CPU engine then keeps packed copies: a second copy of the weights in memory. They are made at the third
        alike call of the module, or at a stream's first step. Training and other backends are as before. FSDP2 gathers
        weights anew for each call, so that of those that it shards no copies are kept.

        A change that torch counts makes the engine pack anew: an optimizer's step, ``load_state_dict``, an in-place
        operation, another parameter. A write that torch does not count is excluded by this promise: through ``.data``,
        through numpy or DLPack memory. After such a write call `freeze` again, or `unfreeze` before.

        Returns:
            The module itself.
        """
        self._freezings += 1
        self._frozen = self._freezings
        return self

    def unfreeze(self) -> Self:
        """Take the promise of `freeze` back: weights are read where they lie, at every call. Returns the module."""
        self._frozen = 0
        return self
