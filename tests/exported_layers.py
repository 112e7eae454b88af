"""Layers, with what calls can be given besides, for torch.export; as a program: it runs what was exported."""

import sys
from pathlib import Path

import torch
from torch import nn

F, H = 3, 4
SIZES = (5, 2), (11, 3), (2, 7)
"""Time steps and sequences."""


class Wrapped(nn.Module):
    """A layer with a named argument as an input, and its results one after the other."""

    def __init__(self, layer, name=None, **always):
        super().__init__()
        self.layer, self.name, self.always = layer, name, always

    def forward(self, input, other=None):
        given = {} if self.name is None else {self.name: other}
        output, states, *kept = self.layer(input, **given, **self.always)
        states = states if isinstance(states, tuple) else (states,)
        return output, *states, *(kept[0].values() if kept else ())


def inputs(name, steps, batch, seed=0, batch_first=False):
    """Of a call: the input, and what it is given besides."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(steps, batch, F, generator=generator)
    lengths = torch.randint(1, steps + 1, (batch,), generator=generator)
    x = x.transpose(0, 1).contiguous() if batch_first else x
    if name is None:
        return (x,)
    if name == "lengths":
        return x, lengths
    other = torch.rand(steps, batch, generator=generator)
    return x, other < 0.3 if name == "reset" else other + 0.1


def shapes(name, batch_first=False):
    """What is dynamic: time steps and sequences."""
    steps, batch = torch.export.Dim("steps", min=2, max=1000), torch.export.Dim("batch", min=2, max=1000)
    axes = {0: batch, 1: steps} if batch_first else {0: steps, 1: batch}
    return {"input": axes} | ({"other": {0: batch} if name == "lengths" else {0: steps, 1: batch}} if name else {})


def run(folder, with_seqcells):
    """Load each program in a folder, run it on the calls beside it, and keep what it gives."""
    if with_seqcells:
        import seqcells  # noqa: F401
    for path in sorted(Path(folder).glob("*.pt2")):
        module = torch.export.load(path).module()
        calls = torch.load(path.with_suffix(".calls"))
        with torch.no_grad():  # torch's own product of the input depends on that, too
            torch.save([module(*given) for given in calls], path.with_suffix(".found"))
    assert with_seqcells or "seqcells" not in sys.modules


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[3]))  # torch's own products, of the input, depend on it
    run(sys.argv[1], sys.argv[2] == "seqcells")
