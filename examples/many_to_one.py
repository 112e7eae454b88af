"""Classify lines of Python's standard library as prose or code: python examples/many_to_one.py

Comments and docstrings are prose. The model reads a line of any length in both directions, character by character, and
classifies it at the end.
"""

import argparse
import io
import sysconfig
import tokenize
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from text import ALPHABET
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from training import DTYPES, Results, final_states, loss_curve, parser, picture, recurrent, train


class LineReader(nn.Module):
    """Characters (T, N) and the lines' lengths (N,) → logits of code and prose (N, 2)."""

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(ALPHABET), 32)
        self.layer = recurrent(options, 32, bidirectional=True)
        self.head = nn.Linear(2 * options.hidden, 2)

    def forward(self, characters: Tensor, lengths: Tensor) -> Tensor:
        hx = final_states(self.layer, self.embedding(characters), lengths)
        forwards, backwards = hx[0] if isinstance(hx, tuple) else hx
        return self.head(torch.cat([forwards, backwards], -1))


def labelled(source: str) -> Iterator[tuple[str, bool]]:
    """The lines of a program, each with whether it is prose: part of a comment or of a string of several lines."""
    prose = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        alone = not token.line[: token.start[1]].strip()
        if token.type == tokenize.COMMENT or (token.type == tokenize.STRING and token.start[0] < token.end[0]):
            prose.update(range(token.start[0], token.end[0] + 1) if alone else ())
    for number, line in enumerate(source.split("\n"), 1):
        stripped = line.strip(" \t#\"'")  # removes characters that would reveal the class
        if stripped:
            yield stripped, number in prose


def corpus(limit: int, length: int) -> tuple[list[Tensor], Tensor]:
    """``limit`` different lines of the standard library, and which lines are prose. A line has its first characters as
    indices into the alphabet."""
    found: dict[str, bool] = {}
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        found.update(labelled(path.read_text(encoding="utf-8")))
        if len(found) >= limit:
            break
    lines = [torch.tensor([ALPHABET.get(c, ALPHABET["?"]) for c in line[:length]]) for line in found]
    return lines[:limit], torch.tensor([*found.values()][:limit]).long()


def main(arguments: Sequence[str] | None = None) -> Results:
    """Train, then classify the held-out tenth of the lines; return the losses, and the share of correct answers."""
    options = parser(__doc__.splitlines()[0], steps=500)
    options.set_defaults(hidden=64)
    options.add_argument("--length", type=int, default=80, help="characters of a line that are read, at most")
    options.add_argument("--lines", type=int, default=20_000, help="of the library that are used")
    options = options.parse_args(arguments)
    torch.manual_seed(options.seed)
    model = LineReader(options).to(options.device, DTYPES[options.dtype])
    lines, kinds = corpus(options.lines, options.length)
    order = torch.randperm(len(lines), generator=torch.Generator().manual_seed(options.seed))
    held_out, known = order.tensor_split([len(order) // 10])

    def read(chosen: Tensor) -> tuple[Tensor, Tensor]:
        """The logits of the chosen lines, and the correct classes."""
        texts = [lines[index] for index in chosen.tolist()]
        lengths = torch.tensor([*map(len, texts)])
        logits = model(pad_sequence(texts).to(options.device), lengths.to(options.device))
        return logits, kinds[chosen].to(options.device)

    def loss_of(chance: torch.Generator) -> Tensor:
        return cross_entropy(*read(known[torch.randint(len(known), (options.batch,), generator=chance)]))

    losses = train(options, model, loss_of)
    with torch.no_grad():
        logits, right = read(held_out)
    told = (logits.argmax(-1) == right).double().mean().item()
    most = right.double().mean().item()
    print(f"{told:.1%} of {len(held_out)} lines held out are told rightly; {max(most, 1 - most):.1%} are of one kind")
    picture(options, loss_curve(losses))
    return Results(losses, {"told": told})


if __name__ == "__main__":
    main()
