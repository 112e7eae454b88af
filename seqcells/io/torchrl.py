"""TorchRL's recurrent modules: trajectories one after the other in a batch run in one call, ``is_init`` as ``reset=``.

TorchRL pads each trajectory to a row of its own, but for its backend "triton", whose methods are those replaced here.
"""

from typing import Any

import torch
from torch import Tensor


class _Module:
    recurrent_backend = property(lambda self: "triton", lambda self, value: None)


class LSTMModule(_Module):
    """For the module of that name, after TorchRL 0.12."""

    def _lstm_triton_with_resets(self, input: Tensor, hidden0_in: Tensor, hidden1_in: Tensor, is_init: Tensor) -> Any:
        return _run(self.lstm, input, [hidden0_in, hidden1_in], is_init)


class GRUModule(_Module):
    """For the module of that name."""

    def _gru_triton_with_resets(self, input: Tensor, hidden_in: Tensor, is_init: Tensor) -> Any:
        return _run(self.gru, input, [hidden_in], is_init)


def _run(layer: Any, x: Tensor, states: list[Tensor], is_init: Tensor) -> tuple[Tensor, ...]:
    """States of a tensordict are (B, T, L, H): read where trajectories begin, and zeros but where they end."""
    starts = torch.cat([torch.ones_like(is_init[:, :1]), is_init[:, 1:]], 1)
    inner = torch.cat([torch.zeros_like(is_init[:, :1]), is_init[:, 1:]], 1)
    if layer.bidirectional or any(state[inner].any() for state in states):
        return _run_in_rows(layer, x, states, starts)
    hx = [state[:, 0].transpose(0, 1) for state in states]
    names = [[f"{name}_l{k}" for k in range(layer.num_layers)] for name in layer.cell.states]
    last, *others = reversed(sum(names[1:], names[0][:-1]) + names[0][-1:])  # the last layer's hidden state is the output
    output, _, *kept = layer(x, hx[0] if len(hx) == 1 else tuple(hx), reset=inner, keep=tuple(others))
    kept = {last: output, **(kept[0] if kept else {})}
    ends = torch.cat([starts[:, 1:], starts[:, :1]], 1)[..., None, None]
    return output, *(torch.where(ends, torch.stack([kept[name] for name in own], 2), 0) for own in names)


def _run_in_rows(layer: Any, x: Tensor, states: list[Tensor], starts: Tensor) -> tuple[Tensor, ...]:
    """Trajectories that begin with states of their own, or that are read from both ends."""
    first, row = starts.flatten().nonzero().squeeze(1), starts.flatten().cumsum(0) - 1
    place, lengths = torch.arange(len(row), device=x.device) - first[row], row.bincount()
    padded = x.new_zeros(len(first), int(lengths.max()), x.shape[2]).index_put((row, place), x.flatten(0, 1))
    hx = [state.flatten(0, 1)[first].transpose(0, 1) for state in states]
    output, final = layer(padded, hx[0] if len(hx) == 1 else tuple(hx), lengths=lengths)
    pairs = zip(states, [final] if len(hx) == 1 else final, strict=True)
    blank = [(torch.zeros_like(state.flatten(0, 1)), end.transpose(0, 1), state) for state, end in pairs]
    found = [b.index_put((first + lengths - 1,), end).view_as(state) for b, end, state in blank]
    return output[row, place].unflatten(0, starts.shape), *found
