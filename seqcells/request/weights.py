"""The tensors of one layer in one direction, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Generic

import torch
from torch import Tensor
from typing_extensions import NamedTuple, TypeVar  # Python 3.10 has neither generic records nor defaults of variables

from ..cells import Cell

T = TypeVar("T", default=Tensor)
"""What a record holds: tensors, or of each tensor whether its gradient is wanted, or its place."""
Other = TypeVar("Other")


class Weights(NamedTuple, Generic[T]):
    """The weights of one layer in one direction; G gates, R recurrent gates, H hidden units, P projected ones.

    * ``ih``: (G·H, input size), or None where the input is already projected, and for a cell without gates;
    * ``hh``: (R·H, H or P), or None for a cell without a recurrent product;
    * ``bias_ih``, ``bias_hh``: (G·H,), (R·H,), or None;
    * ``hr``: (P, H), the projection of the hidden state, or None;
    * ``own``: the cell's own parameters in the order of `Cell.own_names`: of each unit (rows, H), of products
      (row blocks · H, H / heads) and their biases (row blocks · H,) if there are any, numbers (1,). In the place of H
      may be what the cell's sizes say.
    """

    ih: T | None = None
    hh: T | None = None
    bias_ih: T | None = None
    bias_hh: T | None = None
    hr: T | None = None
    own: tuple[T, ...] = ()

    @staticmethod
    def roles(cell: type[Cell], bias: bool, projection: bool) -> tuple[str, ...]:
        """What a layer of ``cell`` has, in the order its module registers them (torch.nn's, then the cell's own)."""
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
        """The shape of the parameter in that role."""
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
        """Give the row blocks of the parameter in that role their initial values by name, where there are any."""
        rows = cell.rows_of(role)
        with torch.no_grad():
            for row, block in zip(rows, parameter.unflatten(0, (len(rows), -1)) if rows else (), strict=True):
                if row in initial:
                    block.fill_(initial[row])

    @classmethod
    def of(cls, roles: Sequence[str], tensors: Sequence[Tensor | None]) -> Weights:
        """From tensors in the order of ``roles``."""
        fields = {role.removeprefix("weight_"): tensor for role, tensor in zip(roles, tensors, strict=True)}
        known = {name: fields.pop(name) for name in ("ih", "hh", "bias_ih", "bias_hh", "hr") if name in fields}
        return Weights(**known, own=tuple(tensor for tensor in fields.values() if tensor is not None))

    def named(self, cell: type[Cell]) -> dict[str, T]:
        """The cell's own parameters by name: those of `Cell.own_names`, but for biases where there are none."""
        names = [*cell.own_names()]
        if len(self.own) < len(names):
            names = [name for name in names if not name.startswith("bias")]
        return dict(zip(names, self.own, strict=True))

    @property
    def first(self) -> T:
        """One that there is."""
        return self.present()[0] if self.ih is None else self.ih

    def with_projection(self, cell: type[Cell], names: Sequence[str]) -> Weights[T]:
        """The same, ``weight_hr`` among the cell's own parameters, which have these names then."""
        own = self.named(cell) | {"weight_hr": self.hr}
        return self._replace(hr=None, own=tuple(own[name] for name in names if name in own))

    def present(self) -> list[T]:
        """The tensors that there are, in the order of ``roles``."""
        return [w for w in (self.ih, self.hh, self.bias_ih, self.bias_hh, self.hr) if w is not None] + list(self.own)

    def replaced(self, others: Sequence[Other]) -> Weights[Other]:
        """The same, with others in the places of the present tensors."""
        rest = iter(others)
        fixed = [None if w is None else next(rest) for w in self[:5]]
        return Weights(*fixed, own=tuple(rest))

    def matching(self, other: Weights[Other]) -> list[Other | None]:
        """What another has in the places of the present tensors."""
        both = zip([*self[:5], *self.own], [*other[:5], *other.own], strict=True)
        return [theirs for own, theirs in both if own is not None]

    def made(self: Weights, cell: type[Cell]) -> Weights:
        """Those that the cell's `step` multiplies by: these, but for what `Cell.weights` makes of them.

        Raises:
            RuntimeError: it makes one that there is not, or in another size.
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
        """Only what is used inside the time loop."""
        return self._replace(ih=None, bias_ih=None)


class _Parts:
    """Weights as attributes; torch.compile follows no SimpleNamespace."""

    def __init__(self, named: Mapping[str, Tensor]) -> None:
        for name, weight in named.items():
            setattr(self, name, weight)
