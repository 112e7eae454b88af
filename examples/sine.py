"""Predict a signal, sin(t)/3 + 2 sin(5t): python examples/sine.py

The model learns to predict each next sample of the signal (many to many). Then it runs free: it reads some samples, and
after them its own outputs for 100 steps. The picture shows these outputs beside the signal.
"""

import argparse
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from training import DTYPES, Results, States, loss_curve, parser, picture, recurrent, stepper, train

INTERVAL = 0.1
"""The time between two samples."""
HEARD = 60
"""Samples before the model runs free."""
FREE = 100
"""Steps that the model runs free."""
UNCOUNTED = 20
"""The first steps, which no loss counts: a few samples do not determine the phase of the signal."""


def signal(start: Tensor, samples: int) -> Tensor:
    """Times (N,) → samples of the signal from these times on (samples, N, 1)."""
    time = start + INTERVAL * torch.arange(samples, device=start.device).unsqueeze(1)
    return (torch.sin(time) / 3 + 2 * torch.sin(5 * time)).unsqueeze(-1)


class Foreteller(nn.Module):
    """Samples (T, N, 1) → the next samples (T, N, 1), and the states."""

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__()
        self.layer = recurrent(options, input_size=1)
        self.head = nn.Linear(options.hidden, 1)

    def forward(self, samples: Tensor) -> tuple[Tensor, States]:
        output, hx = self.layer(samples)
        return self.head(output), hx

    @torch.no_grad()
    def run_free(self, heard: Tensor, steps: int) -> Tensor:
        """Samples (T, N, 1) → the model's continuation (steps, N, 1), with its own outputs as inputs."""
        foretold, hx = self(heard)
        step, samples = stepper(self.layer, hx), [foretold[-1]]
        while len(samples) < steps:
            samples.append(self.head(step(samples[-1])))
        return torch.stack(samples)


def main(arguments: Sequence[str] | None = None) -> Results:
    """Train, then run free from 8 points of the signal; return the losses, and the root mean squares of the errors."""
    options = parser(__doc__.splitlines()[0], steps=1500)
    options.set_defaults(hidden=64)
    options.add_argument("--length", type=int, default=100, help="samples in a sequence")
    options = options.parse_args(arguments)
    if options.length <= UNCOUNTED:
        raise SystemExit(f"--length should be above {UNCOUNTED}, the samples that no loss counts")
    torch.manual_seed(options.seed)
    dtype = DTYPES[options.dtype]
    model = Foreteller(options).to(options.device, dtype)

    def loss_of(chance: torch.Generator) -> Tensor:
        start = 2 * math.pi * torch.rand(options.batch, generator=chance, dtype=torch.float64)
        samples = signal(start, options.length + 1).to(options.device, dtype)
        return mse_loss(model(samples[:-1])[0][UNCOUNTED:], samples[UNCOUNTED + 1 :])

    losses = train(options, model, loss_of)
    truth = signal(torch.arange(8, dtype=torch.float64) * math.pi / 4, HEARD + FREE).to(options.device, dtype)
    with torch.no_grad():
        foretold, _ = model(truth[:-1])
    free = model.run_free(truth[:HEARD], FREE)
    errors = {"one step": foretold[UNCOUNTED:] - truth[UNCOUNTED + 1 :], "running free": free - truth[HEARD:]}
    scores = {name: error.double().square().mean().sqrt().item() for name, error in errors.items()}
    for name, error in scores.items():
        print(f"{name}: error {error:.4f}, root mean square; the signal's own is 1.434")

    def beside_the_truth(axes) -> None:
        axes.set(xlabel="sample", ylabel="sin(t)/3 + 2 sin(5t)", ylim=(-2.6, 3.4))
        axes.plot(truth[:, 0, 0].double().cpu().numpy(), color="0.6", linewidth=3, label="truth")
        axes.plot(range(HEARD, HEARD + FREE), free[:, 0, 0].double().cpu().numpy(), linewidth=1, label="running free")
        axes.axvline(HEARD - 0.5, color="0.3", linestyle=":", linewidth=1)
        axes.legend(loc="upper center", ncols=2)

    picture(options, beside_the_truth, loss_curve(losses, "mean squared error", scale="log"))
    return Results(losses, scores)


if __name__ == "__main__":
    main()
