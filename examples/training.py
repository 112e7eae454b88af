"""What the examples share: their options, the recurrent layer those ask for, the training loop and the plot."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

import seqcells

LAYERS: dict[str, ModuleType] = {"torch": nn, "seqcells": seqcells}
DTYPES = {name: getattr(torch, name) for name in ("float64", "float32", "bfloat16")}


def parser(description: str | None, *, steps: int) -> argparse.ArgumentParser:
    """The options of every example."""
    options = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter, allow_abbrev=False
    )
    options.add_argument("--layer", choices=LAYERS, default="seqcells", help="whose layer the model is made of")
    options.add_argument("--cell", choices=("lstm", "gru", "rnn"), default="lstm")
    options.add_argument("--backend", default="auto", help="of seqcells' layer")
    options.add_argument("--steps", type=int, default=steps, help="of training")
    options.add_argument("--batch", type=int, default=32, help="sequences in a step")
    options.add_argument("--hidden", type=int, default=128, help="hidden units")
    options.add_argument("--rate", type=float, default=3e-3, help="Adam's learning rate")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--dtype", choices=DTYPES, default="float32")
    options.add_argument("--device", default="cpu")
    options.add_argument("--plot", type=Path, metavar="PATH", help="write the loss curve as an image")
    return options


def recurrent(options: argparse.Namespace, input_size: int, **settings: object) -> nn.Module:
    """The layer that the options ask for: the only line that differs between torch.nn and seqcells."""
    if options.layer == "seqcells":
        settings["backend"] = options.backend
    return getattr(LAYERS[options.layer], options.cell.upper())(input_size, options.hidden, **settings)


def train(
    options: argparse.Namespace,
    model: nn.Module,
    loss_of: Callable[[torch.Generator], Tensor],
) -> list[float]:
    """Train the model with Adam → the loss of each step; ``loss_of`` draws a batch and gives its loss."""
    chance = torch.Generator().manual_seed(options.seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=options.rate)
    losses: list[float] = []
    columns = (TextColumn("loss {task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        task = progress.add_task("", total=options.steps)
        for _ in range(options.steps):
            optimizer.zero_grad()
            loss = loss_of(chance)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            losses.append(loss.item())
            progress.update(task, advance=1, description=f"{losses[-1]:.3f}")
    if options.plot:
        plot(losses, options.plot, title=f"{options.layer}, {options.cell}, {options.dtype}, seed {options.seed}")
    return losses


def plot(losses: Sequence[float], path: Path, title: str) -> None:
    """Write the loss curve as an image, in the format of the path's ending."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.add_subplot(xlabel="step", ylabel="cross-entropy, nats", title=title)
    axes.plot(range(1, len(losses) + 1), losses, linewidth=1)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150)
    print(f"loss curve: {path}")
