"""A model as files that a C++ program runs: python examples/without_python/package.py FOLDER

The folder gets AOTInductor's package of the model, the library of its recurrent layers, and test inputs. The program is
run.cpp beside this file. This script prints the commands that compile and run it.
"""

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

import seqcells
from seqcells.io import native


class Tagger(nn.Module):
    """A tag for each time step, for sequences of any lengths: features (T, N, 8), lengths (N,) → logits (T, N, 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = seqcells.LSTM(8, 16, num_layers=2, bidirectional=True, backend="cpu")
        self.reader = seqcells.GRU(32, 16, backend="cpu")
        self.own = seqcells.PeepholeLSTM(16, 16, backend="cpu")
        self.head = nn.Linear(16, 3)

    def forward(self, input: Tensor, lengths: Tensor) -> Tensor:
        for layer in (self.encoder, self.reader, self.own):
            input, _ = layer(input, lengths=lengths)
        return self.head(input)


def example(steps: int, batch: int) -> tuple[Tensor, Tensor]:
    """Inputs of the model."""
    return torch.randn(steps, batch, 8), torch.randint(1, steps + 1, (batch,))


def package(model: nn.Module, folder: Path) -> tuple[Path, Path]:
    """The model's package and library in a folder, for any number of time steps and sequences."""
    steps, batch = torch.export.Dim("steps", min=2), torch.export.Dim("batch", min=2)
    shapes = {"input": {0: steps, 1: batch}, "lengths": {0: batch}}
    with torch.no_grad():
        program = torch.export.export(model.eval(), example(5, 2), dynamic_shapes=shapes, strict=False)
    path = torch._inductor.aoti_compile_and_package(program, package_path=str(folder / "model.pt2"))
    return Path(path), native.library(program, path=folder / "libmodel.so")


def compile_command(program: Path) -> list[str]:
    """The command that compiles run.cpp, for the torch that is imported here."""
    folder = Path(torch.__file__).parent
    includes = [f"-I{folder / 'include'}", f"-I{folder / 'include/torch/csrc/api/include'}"]
    libraries = [f"-L{folder / 'lib'}", f"-Wl,-rpath,{folder / 'lib'}", "-ltorch_cpu", "-lc10", "-ldl"]
    return ["c++", "-std=c++20", *includes, str(Path(__file__).with_name("run.cpp")), "-o", str(program), *libraries]


def main(arguments: Sequence[str] | None = None) -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("folder", type=Path)
    folder = options.parse_args(arguments).folder
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    made, library = package(Tagger(), folder)
    torch.save([*example(7, 3)], folder / "inputs.pt")
    print(shlex.join(compile_command(folder / "run")))
    print(shlex.join(map(str, (folder / "run", library, made, folder / "inputs.pt", folder / "outputs.pt"))))


if __name__ == "__main__":
    main()
