"""Read handwritten digits row by row, 8 steps of 8 pixels: python examples/digits.py

This is the classic "MNIST by rows", with scikit-learn's digits: after the last row the model classifies the digit.
"""

import argparse
from collections.abc import Sequence

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from training import DTYPES, Results, loss_curve, parser, picture, recurrent, train

HELD_OUT = 297


class RowReader(nn.Module):
    """Images (N, rows, pixels) → logits (N, 10)."""

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__()
        self.layer = recurrent(options, input_size=8, batch_first=True)
        self.head = nn.Linear(options.hidden, 10)

    def forward(self, images: Tensor) -> Tensor:
        output, _ = self.layer(images)
        return self.head(output[:, -1])


def main(arguments: Sequence[str] | None = None) -> Results:
    """Train, then classify held-out digits; return the losses, and the share of correct answers."""
    options = parser(__doc__.splitlines()[0], steps=500).parse_args(arguments)
    torch.manual_seed(options.seed)
    model = RowReader(options).to(options.device, DTYPES[options.dtype])
    digits = load_digits()
    images = torch.tensor(digits.images / 16, dtype=DTYPES[options.dtype], device=options.device)
    labels = torch.tensor(digits.target, device=options.device)

    def loss_of(chance: torch.Generator) -> Tensor:
        chosen = torch.randint(HELD_OUT, len(images), (options.batch,), generator=chance)
        return cross_entropy(model(images[chosen]), labels[chosen])

    losses = train(options, model, loss_of)
    with torch.no_grad():
        right = (model.eval()(images[:HELD_OUT]).argmax(-1) == labels[:HELD_OUT]).double().mean().item()
    print(f"{right:.1%} of {HELD_OUT} digits held out are read right")
    picture(options, loss_curve(losses))
    return Results(losses, {"right": right})


if __name__ == "__main__":
    main()
