"""Run the trajectories that follow each other in the rows of a batch, each with its own initial state, in one call."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


def run(layer: Any, x: Tensor, states: list[Tensor], is_first: Tensor) -> tuple[Tensor, ...]:
    """The outputs of all time steps, and the states where trajectories end.

    Args:
        layer: a layer of seqcells with ``batch_first``.
        x: the input (B, T, features).
        states: (B, T, L, H) each, of which only the time steps are read at which trajectories begin.
        is_first: bool (B, T), True where a trajectory begins. The first time step always begins a trajectory.

    Returns:
        The output (B, T, ·), and states (B, T, L, H), which are zeros except where a trajectory ends.
    """
    at_zero = torch.arange(x.shape[1], device=x.device) == 0
    starts, inner = is_first | at_zero, is_first & ~at_zero
    names = [[f"{name}_l{k}" for k in range(layer.num_layers)] for name in layer.cell.states]
    keep = tuple(name for each in names for name in each if name != names[0][-1])
    given = {"reset": inner, "keep": keep}
    own = layer.bidirectional or any(state.requires_grad or state[inner].any() for state in states)
    if len(x) and (own or not _keeps(layer, x, given)):
        return _run_in_rows(layer, x, states, starts)
    hx = tuple(state[:, 0].transpose(0, 1) for state in states)
    output, _, *kept = layer(x, hx[0] if len(hx) == 1 else hx, **given)
    kept = {names[0][-1]: output, **(kept[0] if kept else {})}  # the last layer's hidden state is the output
    ends = torch.cat([starts[:, 1:], starts[:, :1]], 1)[..., None, None]
    return output, *(torch.where(ends, torch.stack([kept[name] for name in each], 2), 0) for each in names)


def _keeps(layer: Any, x: Tensor, given: dict[str, Any]) -> bool:
    """Whether an engine runs the call and keeps the values; False if only the reference can, as without a compiler."""
    try:
        return layer.plan(x, **given).backend != "reference"
    except RuntimeError:
        return False


def _run_in_rows(layer: Any, x: Tensor, states: list[Tensor], starts: Tensor) -> tuple[Tensor, ...]:
    """Run trajectories with initial states other than zeros, or in two directions, each padded to a row of its own."""
    first, row = starts.flatten().nonzero().squeeze(1), starts.flatten().cumsum(0) - 1
    place, lengths = torch.arange(len(row), device=x.device) - first[row], row.bincount()
    padded = x.new_zeros(len(first), int(lengths.max()), x.shape[2]).index_put((row, place), x.flatten(0, 1))
    packed = pack_padded_sequence(padded, lengths.cpu(), batch_first=True, enforce_sorted=False)  # for any backend
    hx = tuple(state.flatten(0, 1)[first].transpose(0, 1) for state in states)
    output, final = layer(packed, hx[0] if len(hx) == 1 else hx)
    output, _ = pad_packed_sequence(output, batch_first=True)
    pairs, last = zip(states, final if len(hx) > 1 else [final], strict=True), (first + lengths - 1,)
    ends = [(torch.zeros_like(state.flatten(0, 1)), end.transpose(0, 1).to(state.dtype), state) for state, end in pairs]
    return output[row, place].unflatten(0, starts.shape), *(z.index_put(last, e).view_as(s) for z, e, s in ends)
