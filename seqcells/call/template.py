"""The call of a module from which later calls with the same signature are prepared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import NamedTuple

import torch
from torch import Tensor

from ..cells import Cell
from ..derive.transformed_cells import for_engines
from ..request import context
from ..request.call import Choice
from ..request.recurrence import Recurrence
from ..request.streams import NONE, of_paths
from ..request.weights import Weights
from .fast_path_torch import Order
from .signature import CellModule


def parameters(module: CellModule) -> list[Tensor]:
    """The module's own parameters in the order of registration, then the tensors that were assigned instead of them."""
    own: list[Tensor] = [parameter for parameter in module._parameters.values() if parameter is not None]
    assigned = module._assigned()
    return own if assigned is None else own + [tensor for tensor in assigned if tensor is not None]


def is_frozen(module: CellModule) -> bool:
    """Whether packed copies of the module's weights may be kept. Under FSDP2 they may not: it gathers weights before
    each call, and torch counts no write. FSDP2 leaves a hook in each module whose parameters it shards."""
    hooks = module._load_state_dict_post_hooks.values() if module._frozen else ()
    gathered = any(getattr(hook, "__module__", "").startswith("torch.distributed.fsdp") for hook in hooks)
    return bool(module._frozen) and not gathered


def versions(tensors: Sequence[Tensor]) -> list[tuple[int, int]] | None:
    """Address and version counter (torch's count of writes) of each tensor; None if an inference tensor has none."""
    return None if any(t.is_inference() for t in tensors) else [(t.data_ptr(), t._version) for t in tensors]


class CallTemplate(NamedTuple):
    """The call of a module from which later calls with the same signature are prepared.

    * ``cell``: in the form that engines take;
    * ``input``: (T, B, features), ``states``: (L·D, B, ·) each. Only shapes and dtypes of both count;
    * ``weights``: L·D records, in the form that engines take; ``layers``: L;
    * ``streams``: by name, each (T, B, ·) or with the axes that the cell declares. Only their shapes count;
    * ``order``: gives a call's weights from the `parameters`, by selection or by `Cell.weights`. None if unknown;
    * ``zeros``: whether the call was given no states;
    * ``batch_first``: whether the layout of a call's input is (B, T, features).
    """

    choice: Choice
    cell: type[Cell]
    input: Tensor
    states: Sequence[Tensor]
    weights: Sequence[Weights]
    order: Order | None
    layers: int
    zeros: bool = False
    streams: Mapping[str, Tensor] = NONE
    batch_first: bool = False

    @staticmethod
    def of(
        module: CellModule,
        choice: Choice,
        input: Tensor,
        states: Sequence[Tensor],
        weights: Sequence[Weights],
        layers: int,
        zeros: bool = False,
        streams: Mapping[str, Tensor] = NONE,
    ) -> CallTemplate:
        """The template for a module and its ``weights``. Cell, weights and order are changed to what engines take."""
        cell, order = module.cell, order_of(module, input, weights)
        if cell.weights is not Cell.weights:
            order = None if order is None else _Made(cell, weights, order)
            made = [w.made(cell) for w in weights]
            weights = [w.replaced([tensor.contiguous() for tensor in w.present()]) for w in made]
        cell = cell if cell.direct else for_engines(cell)
        return CallTemplate(choice, cell, input, states, weights, order, layers, zeros, streams)


def order_of(module: CellModule, input: Tensor, weights: Sequence[Weights]) -> Order | None:
    """The order that selects a call's weights from the `parameters`. None if a weight is not among them, if the input
    is empty, or if a transform or trace is active."""
    own, read = parameters(module), [tensor for w in weights for tensor in w.present()]
    place = {id(parameter): k for k, parameter in enumerate(own)}
    ids = [id(tensor) for tensor in read]
    if context.is_observed([input, *read]) or not input.numel() or not place.keys() >= {*ids}:
        return None
    if ids == [id(parameter) for parameter in own]:
        return itemgetter(slice(None))
    places = [place[each] for each in ids]
    return itemgetter(*places) if len(places) > 1 else itemgetter(slice(places[0], places[0] + 1))


class _Made:
    """The order for a cell with `Cell.weights`: each call makes weights from the learnt ones, by torch operators."""

    def __init__(self, cell: type[Cell], weights: Sequence[Weights], order: Order) -> None:
        self._cell, self._order = cell, order
        self._like = [w.replaced([torch.empty(0)] * len(w.present())) for w in weights]

    def __call__(self, parameters: Sequence[Tensor]) -> list[Tensor]:
        learnt, made = iter(self._order(parameters)), []
        for like in self._like:
            own = like.replaced([next(learnt) for _ in like.present()])
            made += [tensor.contiguous() for tensor in own.made(self._cell).present()]
        return made


def stack_of(template: CallTemplate) -> list[Recurrence]:
    """The layers as recurrences. Only the lowest layer's input and the weights are the caller's own tensors."""
    _, cell, input, states, weights, _, layers, *_ = template
    directions, stack = len(weights) // layers, []
    for first in range(0, len(weights), directions):
        own = slice(first, first + directions)
        like = [torch.empty_like(state[own]).requires_grad_(state.requires_grad) for state in states]
        streams = {name: of_paths(cell.streams[name], each, own) for name, each in template.streams.items()}
        stack.append(Recurrence(cell, None, like, weights[own], input=input, streams=streams))
        input = input.new_empty(*input.shape[:2], directions * stack[-1].width(stack[-1].output))
    return stack
