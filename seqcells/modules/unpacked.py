"""Packed sequences in torch.export: padded inside of the program, as torch's own unpacking looks at their sizes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

if TYPE_CHECKING:
    from .cell_modules import States
    from .recurrent_layer import RecurrentLayer, Results


def _number(tensor: Tensor) -> Any:
    """The one that it holds: while a program is made, torch's word for it."""
    return tensor.item()


def run(layer: RecurrentLayer, input: PackedSequence, hx: States | None, **given: Any) -> Results | tuple[Any, ...]:
    """A layer's call with ``lengths`` in the place of the packing; arguments and results as `RecurrentLayer.forward`.

    The number of sequences is that of ``hx``, where there is any, else one that only the running program knows.

    Raises:
        RuntimeError: the packing is a part of the program.
    """
    data, batch_sizes, sorted_indices, unsorted_indices = input
    if batch_sizes.is_floating_point():  # what torch says of them there
        raise RuntimeError(
            "torch.export cannot trace pack_padded_sequence: give the layer the padded input and lengths="
        )
    steps = batch_sizes.shape[0]

    def turned(values: Tensor) -> Tensor:
        """From steps first to the layer's order, or back."""
        return values.transpose(0, 1) if layer.batch_first else values

    if hx is None:
        batch = _number(batch_sizes[0])
        torch._check(batch > 0)
    else:
        batch = (hx if isinstance(hx, Tensor) else hx[0]).shape[1]
    # Packed steps lie one after the other, of each the sequences that go on: in the order of the mask's true elements.
    valid = torch.arange(batch, device=batch_sizes.device) < batch_sizes.unsqueeze(1)
    valid = valid.to(data.device)
    padded = data.new_zeros(steps, batch, data.shape[1]).masked_scatter(valid.unsqueeze(-1), data)
    lengths, places = valid.sum(0), torch.nonzero_static(valid.flatten(), size=data.shape[0]).squeeze(1)
    if unsorted_indices is not None:
        padded, lengths = padded.index_select(1, unsorted_indices), lengths.index_select(0, unsorted_indices)
    output, final, *kept = layer(turned(padded), hx, lengths=lengths, **given)

    def packed(values: Tensor) -> PackedSequence:
        values = turned(values)
        values = values if sorted_indices is None else values.index_select(1, sorted_indices)
        return PackedSequence(
            values.flatten(0, 1).index_select(0, places), batch_sizes, sorted_indices, unsorted_indices
        )

    return (packed(output), final, *({name: packed(values) for name, values in each.items()} for each in kept))
