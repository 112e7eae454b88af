"""torch.nn's interface to a layer's weights besides the parameters: lists of weights, and one chunk of memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from ..backends import cudnn_weights, torch_ops
from . import flat_weights
from .flat_weights import FlatWeights
from .freezing import Freezable

if TYPE_CHECKING:
    from typing_extensions import Self


class Flattened(Freezable):
    """The part of a layer that lists its weights by name, in a writable list, and keeps them in one chunk of memory."""

    input_size: int
    hidden_size: int
    proj_size: int
    num_layers: int
    bias: bool
    bidirectional: bool
    _all_weights: list[list[str]]
    """The names of the parameters, one list for each layer and direction."""
    _own_state = (*Freezable._own_state, "_flat")

    # Users of torch.nn use these private attributes. Parameters are read by name at each call, because a cache could
    # become stale by a parametrization, an optimizer or functional_call. Only the list of flat weights is kept after
    # its first use, because its user may write to it.

    _flat: FlatWeights | None = None

    @property
    def all_weights(self) -> list[list[Tensor]]:
        """The parameters, one list for each layer and direction."""
        return [[getattr(self, name) for name in names] for names in self._all_weights]

    @property
    def _flat_weights_names(self) -> list[str]:
        return [name for names in self._all_weights for name in names]

    @property
    def _flat_weights(self) -> list[Tensor | None]:
        """The weights that the layer multiplies by, in the order of `_flat_weights_names`. Users may assign the list or
        its entries."""
        assigned = self._assigned()
        if assigned is None:
            self._flat = FlatWeights.of(flat_weights.attributes(self, self._flat_weights_names))
            assigned = self._flat.weights
        return assigned

    @_flat_weights.setter
    def _flat_weights(self, weights: list[Tensor | None]) -> None:
        self._flat = FlatWeights.of(flat_weights.attributes(self, self._flat_weights_names), weights)

    def _assigned(self) -> list[Tensor | None] | None:
        if self._flat is not None and not self._flat.hold(flat_weights.attributes(self, self._flat_weights_names)):
            self._flat = None
        return None if self._flat is None else self._flat.weights

    def _init_flat_weights(self) -> None:
        """Forget assignments to the flat weights."""
        self._flat = None

    def _update_flat_weights(self) -> None:
        """Does nothing: the flat weights are up to date whenever they are read."""

    def flatten_parameters(self) -> None:
        """Move the parameters into one chunk of memory. Otherwise cuDNN copies them at every call: see `chunk`.

        The Parameter objects stay the same. The layer does this itself when it is made, moved, converted, copied or
        loaded. Call it after a write to ``.data`` or after a Parameter was replaced. Without it, calls are slower, but
        their results are correct.
        """
        if self.cell.name in torch_ops.OPERATORS:
            sizes = self.input_size, self.hidden_size, self.proj_size, self.num_layers
            form = cudnn_weights.Form(self.cell.name.upper(), *sizes, self.bias, self.bidirectional)
            cudnn_weights.flatten([self._parameters.get(name) for name in self._flat_weights_names], form)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        nn.Module._apply(self, fn, recurse)
        self._init_flat_weights()
        self.flatten_parameters()
        return self

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.flatten_parameters()  # ``assign=True`` replaces the parameters

    def _begin_from_state(self) -> None:
        super()._begin_from_state()
        self.flatten_parameters()
