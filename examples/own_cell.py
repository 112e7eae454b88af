"""A user-defined cell: invented, checked, trained, timed. The code between `# %%` lines runs part by part in an editor.

The task is the adding problem (Hochreiter & Schmidhuber 1997): two numbers of a sequence are marked. The model gives
their sum after the last step.
"""

# %% Invent: an update gate whose units begin with different memory spans, from one step to hundreds.
import argparse
from collections.abc import Sequence

import torch
from torch import Tensor, nn

import seqcells
from seqcells import check
from seqcells.cells.activations import sigmoid, tanh


class TimescaleStep(seqcells.cells.Cell):
    """h' = h + u (c - h), u = sigmoid(gate - σ): at first a unit remembers about exp(σ) steps. The biases of Tallec &
    Ollivier 2018 (arXiv:1804.11188) do the same; here σ is a parameter of its own."""

    name, gates, states = "timescale", ("u", "c"), ("h",)
    parameters = {"span": ("sigma",)}

    @staticmethod
    def step(x, r, s, p):
        update, candidate = sigmoid(x.u + r.u - p.sigma), tanh(x.c + r.c)
        return s.h + update * (candidate - s.h)


class Timescale(seqcells.RecurrentLayer):
    """Layers of the cell, like torch.nn's layers."""

    cell = TimescaleStep

    def reset_parameters(self) -> None:
        super().reset_parameters()
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if name.startswith("weight_span"):
                    parameter.copy_(torch.linspace(0, 5, parameter.numel()))


# %% Train.
class Adder(nn.Module):
    """The sum of the marked numbers, from the last output."""

    def __init__(self, layer: nn.Module, hidden: int) -> None:
        super().__init__()
        self.layer, self.head = layer, nn.Linear(hidden, 1)

    def forward(self, input: Tensor) -> Tensor:
        return self.head(self.layer(input)[0][-1]).squeeze(-1)


def batch(steps: int, size: int, chance: torch.Generator) -> tuple[Tensor, Tensor]:
    """Sequences (T, N, 2) of numbers and marks, and the sums of the two marked numbers."""
    numbers, marks = torch.rand(steps, size, generator=chance), torch.zeros(steps, size)
    for half in (slice(0, steps // 2), slice(steps // 2, steps)):
        places = torch.randint(half.start, half.stop, (1, size), generator=chance)
        marks.scatter_(0, places, 1.0)
    return torch.stack([numbers, marks], -1), (numbers * marks).sum(0)


def train(model: nn.Module, options: argparse.Namespace) -> list[float]:
    """The losses of all training steps."""
    chance, losses = torch.Generator().manual_seed(options.seed), []
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(options.steps):
        input, target = batch(options.length, 32, chance)
        loss = (model(input) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return losses


def main(arguments: Sequence[str] | None = None) -> dict[str, list[float]]:
    """Check, train and time the cell; return its losses and torch.nn.GRU's."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--steps", type=int, default=600, help="of training; default: 600")
    parser.add_argument("--length", type=int, default=40, help="of the sequences; default: 40")
    parser.add_argument("--hidden", type=int, default=64, help="hidden units; default: 64")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    # %% Check: its gradients, its kernels. `python -m seqcells.check own_cell:Timescale`, in this folder, says more.
    for line in (*check.stages(TimescaleStep), check.gradients(TimescaleStep)):
        print(line)
    losses = {}
    for name, kind in (("Timescale", Timescale), ("torch.nn.GRU", nn.GRU)):
        torch.manual_seed(options.seed)
        losses[name] = train(Adder(kind(2, options.hidden), options.hidden), options)
        print(
            f"{name}: mean squared error {sum(losses[name][-20:]) / 20:.4f} after {options.steps} steps; chance 0.167"
        )
    # %% Time.
    for line in check.times(TimescaleStep, "cpu"):
        print(line)
    return losses


if __name__ == "__main__":
    main()
