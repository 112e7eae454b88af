"""pfrl's `RecurrentSequential`, which finds recurrent layers by torch.nn's types."""

from typing import Any

from pfrl.utils import recurrent

from ..modules.recurrent_layer import RecurrentLayer


class RecurrentSequential:
    """For the module of that name: packed sequences go through recurrent layers, and their data through others."""

    @property
    def recurrent_children(self) -> tuple[Any, ...]:
        """The layers that have states."""
        return tuple(layer for layer in self if isinstance(layer, RecurrentLayer) or recurrent.is_recurrent(layer))

    def forward(self, sequences: Any, recurrent_state: Any) -> tuple[Any, tuple[Any, ...]]:
        """Sequences and the layers' states, or None for zeros → outputs, the layers' new states."""
        layers = self.recurrent_children
        states = [None] * len(layers) if recurrent_state is None else [*recurrent_state]
        order, new = recurrent.get_packed_sequence_info(sequences), []
        for layer in self:
            if layer in layers:
                state = states[len(new)]
                sequences, state = layer(sequences, state)
                new.append(state)
            else:
                unpacked = recurrent.unwrap_packed_sequences_recursive(sequences)
                sequences = recurrent.wrap_packed_sequences_recursive(layer(unpacked), *order)
        return sequences, tuple(new)
