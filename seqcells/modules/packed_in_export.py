"""Packed sequences in torch.export: padding by operators that can be exported.

torch's own unpacking reads the values of batch sizes, which an exported program does not know.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

if TYPE_CHECKING:
    from .cell_modules import States
    from .recurrent_layer import RecurrentLayer, Results


def _number(tensor: Tensor) -> Any:
    """The tensor's only value. During export it is a symbolic number."""
    return tensor.item()


def run(layer: RecurrentLayer, input: PackedSequence, hx: States | None, **given: Any) -> Results | tuple[Any, ...]:
    """A layer's call with ``lengths`` in the place of the packing; arguments and results as `RecurrentLayer.forward`.

    The number of sequences comes from ``hx``. Without ``hx`` only the running program knows it.

    Raises:
        RuntimeError: the exported program itself calls pack_padded_sequence.
    """
    data, batch_sizes, sorted_indices, unsorted_indices = input
    if batch_sizes.is_floating_point():  # under export, torch's pack_padded_sequence gives such batch sizes
        raise RuntimeError(
            "torch.export cannot trace pack_padded_sequence: give the layer the padded input and lengths="
        )
    steps = batch_sizes.shape[0]

    def turned(values: Tensor) -> Tensor:
        """The values transposed from steps first to the layer's layout, or back."""
        return values.transpose(0, 1) if layer.batch_first else values

    if hx is None:
        batch = _number(batch_sizes[0])
        torch._check(batch > 0)
    else:
        batch = (hx if isinstance(hx, Tensor) else hx[0]).shape[1]
    # Packed data holds, step by step, the rows of the sequences that continue: the order of the mask's true elements.
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
