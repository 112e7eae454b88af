"""A character model on real text, the sources of Python's standard library: python examples/text.py

Each step reads windows of the text and predicts each next character. At the end the model writes some Python, one
character a call, with its state carried from call to call.
"""

import argparse
import string
import sysconfig
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from training import DTYPES, Results, States, loss_curve, parser, picture, recurrent, train

ALPHABET = {character: index for index, character in enumerate(string.printable)}


class CharacterModel(nn.Module):
    """Characters (T, N) → logits of the next characters (T, N, alphabet), and the state."""

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(ALPHABET), options.hidden)
        self.layer = recurrent(options, options.hidden, num_layers=2)
        self.head = nn.Linear(options.hidden, len(ALPHABET))

    def forward(self, characters: Tensor, hx: States | None = None):
        output, hx = self.layer(self.embedding(characters), hx)
        return self.head(output), hx


def corpus(limit: int) -> Tensor:
    """The first ``limit`` characters of the standard library, as indices into the alphabet."""
    text = ""
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        text += path.read_text(encoding="utf-8")
        if len(text) >= limit:
            break
    return torch.tensor([ALPHABET.get(character, ALPHABET["?"]) for character in text[:limit]])


@torch.no_grad()
def write(model: CharacterModel, start: str, count: int, chance: torch.Generator) -> str:
    """``start`` and ``count`` characters that the model writes after it, one call for each character."""
    device = model.head.weight.device
    text, hx = start, None
    characters = torch.tensor([[ALPHABET[character]] for character in start])
    for _ in range(count):
        logits, hx = model(characters.to(device), hx)
        characters = logits[-1].float().cpu().softmax(-1).multinomial(1, generator=chance)
        text += string.printable[characters.item()]
    return text


def main(arguments: Sequence[str] | None = None) -> Results:
    """Train and sample; return the losses."""
    options = parser(__doc__.splitlines()[0], steps=1000)
    options.add_argument("--length", type=int, default=100, help="characters in a sequence")
    options.add_argument("--characters", type=int, default=1_000_000, help="of the text that are used")
    options = options.parse_args(arguments)
    torch.manual_seed(options.seed)
    model = CharacterModel(options).to(options.device, DTYPES[options.dtype])
    text = corpus(options.characters)

    def loss_of(chance: torch.Generator) -> Tensor:
        starts = torch.randint(len(text) - options.length, (options.batch,), generator=chance)
        window = text[starts + torch.arange(options.length + 1).unsqueeze(1)].to(options.device)
        logits, _ = model(window[:-1])
        return cross_entropy(logits.flatten(0, 1), window[1:].flatten())

    losses = train(options, model, loss_of)
    print(write(model, "def ", 200, torch.Generator().manual_seed(options.seed)))
    picture(options, loss_curve(losses))
    return Results(losses, {})


if __name__ == "__main__":
    main()
