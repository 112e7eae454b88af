"""The base of this package's modules: options of the cell, initial values, `freeze`, and prepared calls."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, cast

from torch import Tensor, nn
from torch.nn.modules.module import _global_forward_hooks, _global_forward_pre_hooks

from .. import cells
from ..backends import check_name
from ..call.fast_path import Prepared
from ..request import checks
from ..request.weights import Weights

if TYPE_CHECKING:
    from typing_extensions import Self

_CALL = nn.Module.__call__


def is_plain(module: Freezable, call: Callable[..., Any] = _CALL) -> bool:
    """Whether a call of the module runs this package's ``forward`` only: no hooks, and no override.

    Args:
        call: the ``__call__`` that the class must have. torch.fx replaces nn.Module's. Default: nn.Module's original
    """
    kind, own = type(module), module.__dict__
    hooks = own["_forward_hooks"] or own["_forward_pre_hooks"] or _global_forward_hooks or _global_forward_pre_hooks
    return kind.forward is kind._forward and kind.__call__ is call and "forward" not in own and not hooks


class Freezable(nn.Module):
    """The base class of layers and cell modules. With `freeze`, engines may keep packed copies of the weights."""

    cell: type[cells.Cell]
    torch_class: ClassVar[type[nn.Module] | None]
    """torch.nn's class for the same cell, if it has one."""
    _forward: ClassVar[Callable[..., Any]]
    backend: str
    batch_first: bool
    _prepared: Prepared
    _roles: tuple[str, ...]

    _frozen = 0
    """The number of calls of `freeze` so far if the module is frozen, else 0."""
    _freezings = 0
    _own_state: ClassVar = ("_freezings", "_frozen", "_prepared", "_roles", "backend", "initial")
    """The attributes of an instance that torch.nn's module for the same cell does not have."""
    initial: Mapping[str, float] = MappingProxyType({})
    """The module's own initial values, by the names that `Cell.initial` uses. They override the cell's."""
    _options: str = ""
    """The cell's options as words. Files hold these, because the configured cell is a class made at run time."""
    _declared: type[cells.Cell]
    """The cell as the class declares it, before options are applied."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cell = vars(cls).get("cell")
        if cell is None or isinstance(cell, property):
            return
        if not (isinstance(cell, type) and issubclass(cell, cells.Cell)):
            raise TypeError(f"cell of {cls.__name__} should be a class of seqcells.cells.Cell, got {cell!r}")
        cells.register(cell)  # graphs find the cell by its name
        cls._options, cls._declared = cell.words, cell
        if cell.options:
            # A module's cell is the class's cell configured with the module's options.
            cls.cell = cast("type[cells.Cell]", property(lambda module: cell.configurations[module._options]))

    def _configure(self, options: dict[str, Any], hidden_size: int) -> None:
        """Configure the module's cell with the given options.

        Raises:
            TypeError: the cell has no such option, the value has a wrong type, or an option without a default is not
                given.
            ValueError: a size is not positive, or heads do not divide the hidden units.
        """
        for name in options:
            if name not in self.cell.options:
                raise TypeError(f"{type(self).__name__} got an unexpected keyword argument {name!r}")
        if options:
            self._options = self.cell.configured(**options).words
        checks.cell(self.cell)
        checks.sizes(self.cell, hidden_size)

    def _initialise(self, names: Iterable[tuple[str, str]]) -> None:
        """Set the cell's and the module's initial values. ``names`` are pairs of a role and a parameter's name."""
        initial = {**self.cell.initial_values(), **self.initial}
        if initial:
            for role, name in names:
                parameter = self._parameters.get(name)
                if parameter is not None:
                    Weights.initialise(role, self.cell, parameter, initial)

    def _take_initial(self, initial: Mapping[str, float] | None, roles: Iterable[str]) -> None:
        """Store initial values of rows, scalars and biases. ``roles`` are the roles of the module's parameters.

        Raises:
            ValueError: the parameters have no such row, scalar or bias.
            TypeError: a value is no real number.
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
        """The names of options in use that torch.nn's module for the same cell does not have."""
        return []

    def _told_options(self) -> str:
        """The cell's options, for the module's ``repr``."""
        return "".join(f", {word}" for word in self._options.split(",") if word)

    def _settle(self, backend: str) -> None:
        """Set the attributes that torch.nn's module for the same cell does not have. Needs the other attributes set."""
        self.backend = check_name(backend)
        self._begin_anew()

    def _begin_anew(self) -> None:
        """Forget the prepared calls."""
        self._prepared = Prepared()

    def _sizes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the weights that the module must have, by name, in the order of registration."""
        raise NotImplementedError

    def _assigned(self) -> list[Tensor | None] | None:
        """The tensors that a user assigned in the place of the parameters, in their order. None if there are none."""

    def __getstate__(self) -> dict[str, Any]:
        # Prepared calls belong to this process and these parameters. Files hold only types of torch.
        return {name: value for name, value in super().__getstate__().items() if name != "_prepared"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._begin_from_state()

    def _begin_from_state(self) -> None:
        """Finish a copied or loaded module, whose attributes are set."""
        if self._options:
            self._declared.with_words(self._options)
        self._begin_anew()

    def freeze(self) -> Self:
        """Promise that the weights do not change, so that inference calls need not pack them each time.

        The CPU engine then keeps packed copies, a second copy of the weights in memory. It makes them at the third call
        with the same signature, or at a stream's first step. Training and other backends do not change. FSDP2 gathers
        weights for each call, so the engine keeps no copies of weights that FSDP2 shards.

        The engine packs again after a change that torch counts: an optimizer's step, ``load_state_dict``, an in-place
        operation, a replaced parameter. The promise excludes writes that torch does not count: through ``.data``, or
        through memory shared with numpy or DLPack. After such a write call `freeze` again, or call `unfreeze` before.

        Returns:
            The module itself.
        """
        self._freezings += 1
        self._frozen = self._freezings
        return self

    def unfreeze(self) -> Self:
        """Withdraw the promise of `freeze`: every call reads the weights themselves. Returns the module."""
        self._frozen = 0
        return self
