"""Layers and their calls' arguments for torch.export. As a program, it runs what was exported."""

import subprocess
import sys
import warnings
from pathlib import Path

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

F, H = 3, 4
SIZES = (5, 2), (11, 3), (2, 7)
"""Pairs of time steps and sequences."""


class Wrapped(nn.Module):
    """A layer whose named argument is a positional input, with its results in one tuple."""

    def __init__(self, layer, name=None, **always):
        super().__init__()
        self.layer, self.name, self.always = layer, name, always

    def forward(self, input, other=None):
        given = {} if self.name in (None, "packed") else {self.name: other}
        input = PackedSequence(input, other) if self.name == "packed" else input
        output, states, *kept = self.layer(input, **given, **self.always)
        output = output.data if self.name == "packed" else output
        states = states if isinstance(states, tuple) else (states,)
        return output, *states, *(kept[0].values() if kept else ())


def inputs(name, steps, batch, seed=0, batch_first=False):
    """The arguments of a call: the input, and the argument of that name."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(steps, batch, F, generator=generator)
    lengths = torch.randint(1, steps + 1, (batch,), generator=generator)
    x = x.transpose(0, 1).contiguous() if batch_first else x
    if name is None:
        return (x,)
    if name == "lengths":
        return x, lengths
    if name == "packed":
        packed = pack_padded_sequence(x, lengths.sort(descending=True).values)
        return packed.data, packed.batch_sizes
    other = torch.rand(steps, batch, generator=generator)
    return x, other < 0.3 if name == "reset" else other + 0.1


def shapes(name, batch_first=False):
    """The dynamic sizes: time steps and sequences."""
    steps, batch = torch.export.Dim("steps", min=2, max=1000), torch.export.Dim("batch", min=2, max=1000)
    axes = {0: batch, 1: steps} if batch_first else {0: steps, 1: batch}
    if name == "packed":
        return {"input": {0: torch.export.Dim("rows", min=2)}, "other": {0: torch.export.Dim.AUTO}}
    return {"input": axes} | ({"other": {0: batch} if name == "lengths" else {0: steps, 1: batch}} if name else {})


def run(folder, package):
    """Load each program in a folder, run it on the calls beside it, and save its results.

    Args:
        package: seqcells, nothing, or the path of a library that has its operator.
    """
    if package == "seqcells":
        import seqcells  # noqa: F401
    elif package != "nothing":
        torch.ops.load_library(package)
    for path in sorted(Path(folder).glob("*.pt2")):
        module = torch.export.load(path).module()
        calls = torch.load(path.with_suffix(".calls"))
        with torch.no_grad():  # the grad mode decides about torch's own product of the input, too
            torch.save([module(*given) for given in calls], path.with_suffix(".found"))
    assert ("seqcells" in sys.modules) == (package == "seqcells")


def program_of(module, name, batch_first=False, given=None, names=("input", "other")):
    """A module's exported program, for any number of time steps and sequences.

    Args:
        given: the example arguments of the export. Default: `inputs`
        names: the names of the module's arguments.
    """
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        given = inputs(name, *SIZES[0], batch_first=batch_first) if given is None else given
        dynamic = dict(zip(names, shapes(name, batch_first).values(), strict=False))
        return torch.export.export(module.eval(), given, dynamic_shapes=dynamic, strict=False)


def keep(folder, name, program, module, given, near=(1e-5, 1e-6)):
    """Save a program, its calls, and the module's results of these calls."""
    torch.export.save(program, folder / f"{name}.pt2")
    torch.save(given, folder / f"{name}.calls")
    with torch.no_grad():
        found, expected = ([run(*each) for each in given] for run in (program.module(), module))
    torch.testing.assert_close(found, expected, rtol=near[0], atol=near[1])
    torch.save(found, folder / f"{name}.expected")


def run_elsewhere(folder, package):
    """Run a folder's programs in a fresh process.

    Yields each program's name, its results there, and the results kept here.
    """
    command = [sys.executable, "-W", "ignore", __file__, str(folder), package]
    command.append(str(torch.get_num_threads()))
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr[-4000:]
    for path in sorted(folder.glob("*.expected")):
        yield path.stem, torch.load(path.with_suffix(".found")), torch.load(path)


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[3]))  # torch's own products of the input depend on it
    run(sys.argv[1], sys.argv[2])
