"""Where sequences end and where their states are reset, from the arguments ``lengths`` and ``reset``."""

import torch
from torch import Tensor


def valid_steps(lengths: Tensor, steps: int) -> Tensor:
    """(T, B) bool: whether step t lies within the sequence, from the integers ``lengths`` (B,)."""
    # torch has no comparison for most unsigned integer dtypes.
    return torch.arange(steps, device=lengths.device).unsqueeze(1) < lengths.to(torch.int64)


def valid_places(lengths: Tensor, input: Tensor, batch_first: bool) -> Tensor:
    """The mask of `valid_steps` with the time and batch axes of a layer's input: (T, B, F), (B, T, F), or (T, F)."""
    if input.dim() == 2:
        return valid_steps(lengths.reshape(1), input.shape[0]).squeeze(1)
    valid = valid_steps(lengths, input.shape[1 if batch_first else 0])
    return valid.T if batch_first else valid


def boundaries(reset: Tensor, valid: Tensor | None, reverse: bool) -> Tensor:
    """(T, B) bool: whether a direction resets the state just before it computes step t.

    ``reset[t]`` is a boundary between t-1 and t. The reverse direction meets the boundary before step t-1. Flags past a
    sequence's length lie in padding and are ignored.
    """
    if valid is not None:
        reset = reset & valid
    if not reverse:
        return reset
    # A slice would put a guard on the number of steps into an exported program.
    times, last = torch.arange(reset.shape[0], device=reset.device), reset.shape[0] - 1
    return reset[(times + 1).clamp(max=last)] & (times < last).unsqueeze(1)
