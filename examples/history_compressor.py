"""The history compressor, or neural sequence chunker (Schmidhuber 1992, doi:10.1162/neco.1992.4.2.234): two recurrent
layers, of which the upper sees only what the lower does not predict.

The lower layer learns to predict the next symbol. A symbol that it predicts tells nothing new, and the upper layer does
not read it. So symbols that are far apart in time are near in the upper layer's steps. Two symbols of the task matter:
they are far apart, and the stretch between them is always the same. The question is whether the two are equal. Two
plain layers of the same sizes do not learn it.
"""

import argparse
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

import seqcells

KEYS = 2
"""The symbols that matter are 0 and 1; the symbols from 2 on follow one another."""


def batch(lag: int, size: int, chance: torch.Generator) -> tuple[Tensor, Tensor]:
    """Symbols (lag + 2, N): a key, the stretch and a key; and whether the two keys differ (N,)."""
    keys = torch.randint(KEYS, (2, size), generator=chance)
    stretch = torch.arange(KEYS, KEYS + lag).unsqueeze(1).expand(lag, size)
    return torch.cat([keys[:1], stretch, keys[1:]]), keys[0] ^ keys[1]


class Plain(nn.Module):
    """Two layers that learn from all errors: of the next symbols, and of the answer at the end."""

    def __init__(self, symbols: int, hidden: int) -> None:
        super().__init__()
        self.layers = seqcells.RNN(symbols, hidden, num_layers=2)
        self.next, self.answer = nn.Linear(hidden, symbols), nn.Linear(hidden, KEYS)

    def forward(self, input: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The logits of the next symbols, the logits of the answers, and the number of symbols that an answer is made
        of."""
        output, _ = self.layers(input)
        return self.next(output[:-1]), self.answer(output[-1]), torch.full(input.shape[1:2], len(input))


class Compressor(nn.Module):
    """The lower layer predicts and the upper layer answers; each layer learns from its own errors alone."""

    def __init__(self, symbols: int, hidden: int) -> None:
        super().__init__()
        self.lower, self.next = seqcells.RNN(symbols, hidden), nn.Linear(hidden, symbols)
        self.upper, self.answer = seqcells.RNN(symbols + 1, hidden), nn.Linear(hidden, KEYS)

    def forward(self, input: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns what `Plain` returns."""
        output, _ = self.lower(input[:-1])
        predicted = self.next(output)
        above, lengths = compressed(input, unexpected(predicted.detach(), input))
        _, final = self.upper(above, lengths=lengths)
        return predicted, self.answer(final[-1]), lengths


def unexpected(predicted: Tensor, input: Tensor, confidence: float = 0.9) -> Tensor:
    """Which symbols (T, N) had a probability below ``confidence``. The first symbol always counts, as it is not
    predicted."""
    probability = (predicted.softmax(-1) * input[1:]).sum(-1)
    return torch.cat([torch.ones_like(input[:1, :, 0], dtype=torch.bool), probability < confidence])


def compressed(input: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
    """The kept symbols, each with its time, as sequences (T', N, symbols + 1), and the lengths of these sequences.

    With the times no information is lost: the lower layer can restore all symbols between.
    """
    steps, size = kept.shape
    time = torch.linspace(0, 1, steps).view(-1, 1, 1).expand(steps, size, 1)
    order, lengths = kept.int().argsort(dim=0, descending=True, stable=True), kept.sum(0)
    order = order[: int(lengths.max())].unsqueeze(-1)
    both = torch.cat([input, time], -1)
    return both.gather(0, order.expand(-1, -1, both.shape[-1])), lengths


def train(model: nn.Module, options: argparse.Namespace) -> tuple[float, float]:
    """Train a model; return the share of correct answers in the last steps, and the symbols of a sequence that they
    were made of."""
    chance = torch.Generator().manual_seed(options.seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=options.rate)
    right, seen = [], []
    for _ in range(options.steps):
        symbols, differ = batch(options.lag, options.batch, chance)
        predicted, answer, lengths = model(one_hot(symbols, KEYS + options.lag).float())
        loss = cross_entropy(predicted.flatten(0, 1), symbols[1:].flatten()) + cross_entropy(answer, differ)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        right.append((answer.argmax(-1) == differ).float().mean())
        seen.append(lengths.float().mean())
    return torch.stack(right[-20:]).mean().item(), torch.stack(seen[-20:]).mean().item()


def main(arguments: Sequence[str] | None = None) -> dict[str, tuple[float, float]]:
    """Train both models; return the results of `train` by name."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=600, help="of training")
    parser.add_argument("--lag", type=int, default=40, help="steps between the symbols that matter")
    parser.add_argument("--batch", type=int, default=32, help="sequences in a step")
    parser.add_argument("--hidden", type=int, default=32, help="hidden units of a layer")
    parser.add_argument("--rate", type=float, default=3e-3, help="Adam's learning rate")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    if options.steps < 1:
        parser.error("--steps should be 1 or more")
    symbols, found = KEYS + options.lag, {}
    torch.manual_seed(options.seed)
    models = {
        "two plain layers": Plain(symbols, options.hidden),
        "history compressor": Compressor(symbols, options.hidden),
    }
    for name, model in models.items():
        right, seen = found[name] = train(model, options)
        print(f"{name}: {right:.0%} of the answers right (chance: 50%), from {seen:.1f} of {symbols} symbols")
    return found


if __name__ == "__main__":
    main()
