"""TorchRL's recurrent modules: trajectories one after the other in a batch run in one call, ``is_init`` as ``reset=``.

TorchRL pads each trajectory to a row of its own, but for its backend "triton", whose methods are those replaced here.
"""

from typing import Any

import torch
from torch import Tensor


class LSTMModule:
    """For the module of that name, after TorchRL 0.12."""

    recurrent_backend = property(lambda self: "triton", lambda self, value: None)

    def _lstm_triton_with_resets(self, input: Tensor, hidden0_in: Tensor, hidden1_in: Tensor, is_init: Tensor) -> Any:
        return _run(self.lstm, input, [hidden0_in, hidden1_in], is_init)


class GRUModule:
    """For the module of that name."""

    recurrent_backend = LSTMModule.recurrent_backend

    def _gru_triton_with_resets(self, input: Tensor, hidden_in: Tensor, is_init: Tensor) -> Any:
        return _run(self.gru, input, [hidden_in], is_init)


def _run(layer: Any, x: Tensor, states: list[Tensor], is_init: Tensor) -> tuple[Tensor, ...]:
    """States of a tensordict are (B, T, L, H): read where trajectories begin, and zeros but where they end."""
    is_first = torch.arange(x.shape[1], device=x.device) == 0
    starts, inner = is_init | is_first, is_init & ~is_first
    names = [[f"{name}_l{k}" for k in range(layer.num_layers)] for name in layer.cell.states]
    keep = tuple(name for each in names for name in each if name != names[0][-1])
    given = {"reset": inner, "keep": keep}
    own = layer.bidirectional or any(state.requires_grad or state[inner].any() for state in states)
    if own or not _keeps(layer, x, given):
        return _run_in_rows(layer, x, states, starts)
    hx = tuple(state[:, 0].transpose(0, 1) for state in states)
    output, _, *kept = layer(x, hx if len(hx) > 1 else hx[0], **given)
    kept = {names[0][-1]: output, **(kept[0] if kept else {})}  # the last layer's hidden state is the output
    ends = torch.cat([starts[:, 1:], starts[:, :1]], 1)[..., None, None]
    return output, *(torch.where(ends, torch.stack([kept[name] for name in each], 2), 0) for each in names)


def _keeps(layer: Any, x: Tensor, given: dict[str, Any]) -> bool:
    """Whether an engine keeps the values: where nothing compiles its kernels, it keeps none."""
    try:
        return layer.plan(x, **given).backend != "reference"
    except RuntimeError:
        return False


def _run_in_rows(layer: Any, x: Tensor, states: list[Tensor], starts: Tensor) -> tuple[Tensor, ...]:
    """Trajectories that begin with states of their own or are read from both ends, each padded to a row."""
    first, row = starts.flatten().nonzero().squeeze(1), starts.flatten().cumsum(0) - 1
    place, lengths = torch.arange(len(row), device=x.device) - first[row], row.bincount()
    padded = x.new_zeros(len(first), int(lengths.max()), x.shape[2]).index_put((row, place), x.flatten(0, 1))
    hx = tuple(state.flatten(0, 1)[first].transpose(0, 1) for state in states)
    output, final = layer(padded, hx if len(hx) > 1 else hx[0], lengths=lengths)
    pairs, last = zip(states, final if len(hx) > 1 else [final], strict=True), (first + lengths - 1,)
    found = [torch.zeros_like(s.flatten(0, 1)).index_put(last, e.transpose(0, 1)).view_as(s) for s, e in pairs]
    return output[row, place].unflatten(0, starts.shape), *found
