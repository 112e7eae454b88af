"""What the examples share: their options, the recurrent layer for these options, the training loop and the picture."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

import seqcells

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LAYERS: dict[str, ModuleType] = {"torch": nn, "seqcells": seqcells}
DTYPES = {name: getattr(torch, name) for name in ("float64", "float32", "bfloat16")}
States = Tensor | tuple[Tensor, ...]
Panel = Callable[["Axes"], None]
"""A function that draws one part of the picture."""


class Results(NamedTuple):
    """The result of an example's ``main``."""

    losses: list[float]
    """The loss of each training step."""
    scores: dict[str, float]
    """Scores of the trained model, by name."""


def norm(text: str) -> float:
    """The value of ``--clip``: a bound of a norm, or 0 for none."""
    bound = 0.0 if text == "off" else float(text)
    if not bound >= 0:
        raise argparse.ArgumentTypeError(f"a norm should be 0 or above, got: {text}")
    return bound


def count(text: str) -> int:
    """The value of an option that counts something, at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"a count should be 1 or above, got: {text}")
    return number


def parser(description: str | None, *, steps: int) -> argparse.ArgumentParser:
    """The options of every example."""
    options = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter, allow_abbrev=False
    )
    options.add_argument("--layer", choices=LAYERS, default="seqcells", help="whose layer the model is made of")
    options.add_argument("--cell", choices=("lstm", "gru", "rnn"), default="lstm")
    options.add_argument("--backend", default="auto", help="of seqcells' layer")
    options.add_argument("--initial", choices=("default", "xavier-orthogonal"), default="default", help="values")
    options.add_argument("--steps", type=int, default=steps, help="of training")
    options.add_argument("--batch", type=int, default=32, help="sequences in a step")
    options.add_argument("--hidden", type=int, default=128, help="hidden units")
    options.add_argument("--rate", type=float, default=3e-3, help="Adam's learning rate")
    options.add_argument("--clip", type=norm, default=1.0, help="the gradients' largest norm; 0 or off for any")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--dtype", choices=DTYPES, default="float32")
    options.add_argument("--device", default="cpu")
    options.add_argument(
        "--plot", type=Path, metavar="PATH", help="write the loss curve, and what else there is to see"
    )
    return options


def recurrent(options: argparse.Namespace, input_size: int, **settings: object) -> nn.Module:
    """The layer for these options: the only line that differs between torch.nn and seqcells."""
    if options.layer == "seqcells":
        settings["backend"] = options.backend
    layer = getattr(LAYERS[options.layer], options.cell.upper())(input_size, options.hidden, **settings)
    if options.initial == "xavier-orthogonal":
        xavier_orthogonal(layer)
    return layer


@torch.no_grad()
def xavier_orthogonal(layer: nn.Module) -> None:
    """Set other initial values for an LSTM, GRU or RNN of either package, in place, gate by gate.

    Weights of the input are uniform by Glorot & Bengio (2010), and recurrent weights are orthogonal (Saxe et al. 2014,
    arXiv:1312.6120). Biases are 0, except for an LSTM's forget gate, whose bias is 1 (Gers et al. 2000,
    doi:10.1162/089976600300015015).
    """
    for name, parameter in layer.named_parameters():
        gates = parameter.split(layer.hidden_size)
        for gate in gates:
            if name.startswith("weight_hh"):
                nn.init.orthogonal_(gate)
            elif name.startswith("weight"):
                nn.init.xavier_uniform_(gate)
            else:
                nn.init.zeros_(gate)
        if layer.mode == "LSTM" and name.startswith("bias_ih"):  # i, f, g, o
            nn.init.ones_(gates[1])


def final_states(layer: nn.Module, input: Tensor, lengths: Tensor) -> States:
    """The states at each sequence's own length (1 or more), for padded sequences (T, N, features) and lengths (N,)."""
    if isinstance(layer, seqcells.RecurrentLayer):
        return layer(input, lengths=lengths)[1]
    return layer(pack_padded_sequence(input, lengths.cpu(), enforce_sorted=False))[1]


def stepper(layer: nn.Module, hx: States) -> Callable[[Tensor], Tensor]:
    """A function that runs a layer from the states ``hx``, one step a call, without gradients: input (N, features) →
    output (N, hidden).

    The layer is not ``batch_first``. An output is valid until the step after next.
    """
    if isinstance(layer, seqcells.RecurrentLayer):
        stream = layer.stream(batch_size=(hx[0] if isinstance(hx, tuple) else hx).shape[1])
        stream.state = hx
        return stream

    @torch.no_grad()
    def step(input: Tensor) -> Tensor:
        nonlocal hx
        output, hx = layer(input.unsqueeze(0), hx)
        return output.squeeze(0)

    return step


def progress_bar(**settings: object) -> Progress:
    """A bar of training steps, whose description is the loss. ``settings`` are those of `rich.progress.Progress`."""
    columns = (TextColumn("loss {task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, **settings)


def train(
    options: argparse.Namespace,
    model: nn.Module,
    loss_of: Callable[[torch.Generator], Tensor],
) -> list[float]:
    """Train the model with Adam; return the loss of each step. ``loss_of`` draws a batch and gives its loss.

    Gradients whose norm is above ``--clip`` are scaled down to it (Pascanu et al. 2013, arXiv:1211.5063).
    """
    chance = torch.Generator().manual_seed(options.seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=options.rate)
    losses: list[float] = []
    with progress_bar() as progress:
        task = progress.add_task("", total=options.steps)
        for _ in range(options.steps):
            optimizer.zero_grad()
            loss = loss_of(chance)
            loss.backward()
            if options.clip:
                nn.utils.clip_grad_norm_(model.parameters(), options.clip)
            optimizer.step()
            losses.append(loss.item())
            progress.update(task, advance=1, description=f"{losses[-1]:.3f}")
    return losses


def loss_curve(losses: Sequence[float], label: str = "cross-entropy, nats", scale: str = "linear") -> Panel:
    """A panel of the picture: the loss of each step."""

    def panel(axes: "Axes") -> None:
        axes.set(xlabel="step", ylabel=label, yscale=scale)
        axes.plot(range(1, len(losses) + 1), losses, linewidth=1)
        axes.grid(alpha=0.3)

    return panel


def picture(options: argparse.Namespace, *panels: Panel) -> None:
    """Write panels side by side as an image, in the format of the path's ending, if ``--plot`` names a path."""
    if not options.plot:
        return
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6 * len(panels), 3.5), layout="constrained")
    figure.suptitle(f"{options.layer}, {options.cell}, {options.dtype}, seed {options.seed}")
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        panel(axes)
    figure.savefig(options.plot, dpi=150)
    print(f"picture: {options.plot}")
