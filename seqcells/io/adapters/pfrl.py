"""Adapter for pfrl's `RecurrentSequential`, which recognizes recurrent layers by torch.nn's types."""

from typing import Any

from pfrl.utils import recurrent  # pyright: ignore[reportMissingImports]  # not installed where types are checked

from ...modules.recurrent_layer import RecurrentLayer
from .base import Theirs


class RecurrentSequential(Theirs):
    """A mixin for pfrl's module: recurrent layers get packed sequences, all other layers get the sequences' data."""

    @property
    def recurrent_children(self) -> tuple[Any, ...]:
        """The recurrent layers."""
        return tuple(layer for layer in self if isinstance(layer, RecurrentLayer) or recurrent.is_recurrent(layer))

    def forward(self, sequences: Any, recurrent_state: Any) -> tuple[Any, tuple[Any, ...]]:
        """Sequences and the recurrent layers' states, or None for zeros → outputs, the recurrent layers' new states."""
        layers, new = self.recurrent_children, []
        states = [None] * len(layers) if recurrent_state is None else [*recurrent_state]
        assert len(states) == len(layers)
        order, packed = recurrent.get_packed_sequence_info(sequences), True
        for layer in self:
            if (layer in layers) != packed:
                packed = not packed
                change = recurrent.wrap_packed_sequences_recursive if packed else _unwrapped
                sequences = change(sequences, *order)
            if packed:
                sequences, state = layer(sequences, states[len(new)])
                new.append(state)
            else:
                sequences = layer(sequences)
        return sequences if packed else recurrent.wrap_packed_sequences_recursive(sequences, *order), tuple(new)


def _unwrapped(sequences: Any, *order: Any) -> Any:
    return recurrent.unwrap_packed_sequences_recursive(sequences)
