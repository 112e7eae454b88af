"""Draw digits row by row, 8 rows of 8 pixels, from their labels alone: python examples/one_to_many.py

One to many: a label becomes the initial state, and each drawn row is read before the next. The picture shows the
drawings above the mean of each digit.
"""

import argparse
from collections.abc import Sequence

import torch
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from training import DTYPES, Results, States, loss_curve, parser, picture, recurrent, stepper, train


class Drawer(nn.Module):
    """Labels (N,) and rows so far (T, N, pixels) → logits of each next row's pixels (T, N, pixels)."""

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__()
        self.begin = nn.Embedding(10, options.hidden)
        self.layer = recurrent(options, input_size=8)
        self.head = nn.Linear(options.hidden, 8)

    def first_states(self, labels: Tensor) -> States:
        hidden = self.begin(labels).unsqueeze(0)
        return (hidden, torch.zeros_like(hidden)) if self.layer.mode == "LSTM" else hidden

    def forward(self, labels: Tensor, rows: Tensor) -> Tensor:
        output, _ = self.layer(rows, self.first_states(labels))
        return self.head(output)

    @torch.no_grad()
    def draw(self, labels: Tensor) -> Tensor:
        """Labels (N,) → images (N, rows, pixels); each row is made from the rows above it."""
        step = stepper(self.layer, self.first_states(labels))
        rows = [self.head.weight.new_zeros(len(labels), 8)]
        while len(rows) <= 8:
            rows.append(self.head(step(rows[-1])).sigmoid())
        return torch.stack(rows[1:], 1)


def main(arguments: Sequence[str] | None = None) -> Results:
    """Train, then draw each digit; return the losses, and the share of drawings that nearest neighbours among real
    digits recognise."""
    options = parser(__doc__.splitlines()[0], steps=1000).parse_args(arguments)
    torch.manual_seed(options.seed)
    model = Drawer(options).to(options.device, DTYPES[options.dtype])
    digits = load_digits()
    images = torch.tensor(digits.images / 16, dtype=DTYPES[options.dtype], device=options.device)
    labels = torch.tensor(digits.target, device=options.device)

    def loss_of(chance: torch.Generator) -> Tensor:
        chosen = torch.randint(len(images), (options.batch,), generator=chance)
        rows = images[chosen].transpose(0, 1)
        above = torch.cat([torch.zeros_like(rows[:1]), rows[:-1]])
        return binary_cross_entropy_with_logits(model(labels[chosen], above), rows)

    losses = train(options, model, loss_of)
    drawings = model.draw(torch.arange(10, device=options.device)).double().cpu()
    judge = KNeighborsClassifier(5).fit(digits.data / 16, digits.target)
    recognised = (judge.predict(drawings.flatten(1).numpy()) == range(10)).mean().item()
    print(f"{recognised:.0%} of the 10 drawings are recognised")
    means = torch.stack([images[labels == digit].double().mean(0).cpu() for digit in range(10)])

    def gallery(axes) -> None:
        axes.set_axis_off()
        axes.set_title("drawings, and below them the means", fontsize="medium")
        rows = [torch.cat([*each], 1) for each in (drawings, means)]
        axes.imshow(torch.cat([rows[0], torch.zeros_like(rows[0][:2]), rows[1]]).numpy(), cmap="gray_r", vmin=0, vmax=1)

    picture(options, gallery, loss_curve(losses, "binary cross-entropy, nats"))
    return Results(losses, {"recognised": recognised})


if __name__ == "__main__":
    main()
