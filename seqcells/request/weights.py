"""The tensors of one layer in one direction, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Generic

import torch
from torch import Tensor
from typing_extensions import NamedTuple, TypeVar  # Python 3.10 has neither generic records nor defaults of variables

from ..cells import Cell

T = TypeVar("T", default=Tensor)
"""The type of a record's entries: tensors, bools (whether a gradient is wanted), or places in a list."""
Other = TypeVar("Other")


class Weights(NamedTuple, Generic[T]):
    """The weights of one layer in one direction; G gates, R recurrent gates, H hidden units, P projected units.

    * ``ih``: (G·H, input size), or None if the input is already projected or the cell has no gates;
    * ``hh``: (R·H, H or P), or None for a cell without a recurrent product;
    * ``bias_ih``, ``bias_hh``: (G·H,), (R·H,), or None;
    * ``hr``: (P, H), the projection of the hidden state, or None;
    * ``own``: the cell's own parameters in the order of `Cell.own_names`. Parameters of each unit are (rows, H).
      Weights of products are (row blocks · H, H / heads), and their biases, if any, (row blocks · H,). Scalars are
      (1,). Other sizes that the cell declares may replace H.
    """

    ih: T | None = None
    hh: T | None = None
    bias_ih: T | None = None
    bias_hh: T | None = None
    hr: T | None = None
    own: tuple[T, ...] = ()

    @staticmethod
    def roles(cell: type[Cell], bias: bool, projection: bool) -> tuple[str, ...]:
        """The roles of a layer's parameters in the order of registration: torch.nn's roles, then the cell's own."""
        roles = ["weight_ih"] if cell.gates else []
        if cell.recurrent_gates:
            roles.append("weight_hh")
        if bias:
            roles += ["bias_ih"] if cell.gates else []
            if cell.recurrent_gates:
                roles.append("bias_hh")
        if projection:
            roles.append("weight_hr")
        return *roles, *(role for role in cell.own_names() if bias or not role.startswith("bias"))

    @staticmethod
    def shape(role: str, cell: type[Cell], input_size: int, hidden_size: int, proj_size: int) -> tuple[int, ...]:
        """The shape of the parameter with the given role."""
        first = (cell.sizes_by_letter(hidden_size) | {"F": input_size})[cell.state_sizes[cell.states[0]]]
        heads = cell.every_product["hh"].heads if cell.recurrent_gates else 1
        shapes = cell.own_shapes(hidden_size, input_size) | {
            "weight_ih": (len(cell.gates) * hidden_size, input_size),
            "weight_hh": (len(cell.recurrent_gates) * hidden_size, (proj_size or first) // heads),
            "bias_ih": (len(cell.gates) * hidden_size,),
            "bias_hh": (len(cell.recurrent_gates) * hidden_size,),
            "weight_hr": (proj_size, hidden_size),
        }
        return shapes[role]

    @staticmethod
    def initialise(role: str, cell: type[Cell], parameter: Tensor, initial: Mapping[str, float]) -> None:
        """Fill the parameter's row blocks that ``initial`` names with their initial values."""
        rows = cell.rows_of(role)
        with torch.no_grad():
            for row, block in zip(rows, parameter.unflatten(0, (len(rows), -1)) if rows else (), strict=True):
                if row in initial:
                    block.fill_(initial[row])

    @classmethod
    def of(cls, roles: Sequence[str], tensors: Sequence[Tensor | None]) -> Weights:
        """The record of tensors given in the order of ``roles``."""
        fields = {role.removeprefix("weight_"): tensor for role, tensor in zip(roles, tensors, strict=True)}
        known = {name: fields.pop(name) for name in ("ih", "hh", "bias_ih", "bias_hh", "hr") if name in fields}
        return Weights(**known, own=tuple(tensor for tensor in fields.values() if tensor is not None))

    def named(self, cell: type[Cell]) -> dict[str, T]:
        """The cell's own parameters by name, in the order of `Cell.own_names`. Biases may be missing."""
        names = [*cell.own_names()]
        if len(self.own) < len(names):
            names = [name for name in names if not name.startswith("bias")]
        return dict(zip(names, self.own, strict=True))

    @property
    def first(self) -> T:
        """The first entry that is not None."""
        return self.present()[0] if self.ih is None else self.ih

    def with_projection(self, cell: type[Cell], names: Sequence[str]) -> Weights[T]:
        """The record with ``weight_hr`` moved to the cell's own parameters, which get the order of ``names``."""
        own = self.named(cell) | {"weight_hr": self.hr}
        return self._replace(hr=None, own=tuple(own[name] for name in names if name in own))

    def present(self) -> list[T]:
        """The entries that are not None, in the order of ``roles``."""
        return [w for w in (self.ih, self.hh, self.bias_ih, self.bias_hh, self.hr) if w is not None] + list(self.own)

    def replaced(self, others: Sequence[Other]) -> Weights[Other]:
        """The record with other values in the places of the entries that are not None."""
        rest = iter(others)
        fixed = [None if w is None else next(rest) for w in self[:5]]
        return Weights(*fixed, own=tuple(rest))

    def matching(self, other: Weights[Other]) -> list[Other | None]:
        """The entries of ``other`` in the places where this record is not None."""
        both = zip([*self[:5], *self.own], [*other[:5], *other.own], strict=True)
        return [theirs for own, theirs in both if own is not None]

    def made(self: Weights, cell: type[Cell]) -> Weights:
        """The weights that the cell's `step` multiplies by: these, with the results of `Cell.weights` in their places.

        Raises:
            RuntimeError: `Cell.weights` returns an unknown weight, or a weight of another size.
        """
        if cell.weights is Cell.weights:
            return self
        own, every = self.named(cell), cell.every_product
        learnt = {name: own[f"weight_{name}"] for name in cell.rows_of_products()}
        if self.hh is not None:
            learnt["hh"] = self.hh
        parts = {name: w.unflatten(0, (len(every[name].rows) * every[name].heads, -1)) for name, w in learnt.items()}
        made = {name: weight.flatten(0, 1) for name, weight in cell.weights(_Parts(parts)).items()}
        for name, weight in made.items():
            if name not in learnt or weight.shape != learnt[name].shape:
                raise RuntimeError(f"weights of {cell.__name__} makes {name}, which is no weight or has another size")
        own |= {f"weight_{name}": weight for name, weight in made.items() if name != "hh"}
        return self._replace(hh=made.get("hh", self.hh), own=tuple(own.values()))

    @property
    def recurrent(self) -> Weights[T]:
        """The record without the input weights ``ih`` and ``bias_ih``, as the time loop uses it."""
        return self._replace(ih=None, bias_ih=None)


class _Parts:
    """Weights as attributes. torch.compile cannot trace a SimpleNamespace."""

    def __init__(self, named: Mapping[str, Tensor]) -> None:
        for name, weight in named.items():
            setattr(self, name, weight)
