"""Read a text from batch to batch, with carried states: python examples/stateful_text.py [--no-stateful]

Each row of a batch continues that row of the batch before. The states are carried, the gradients are not: this is
truncated backpropagation through time (Williams & Peng 1990, doi:10.1162/neco.1990.2.4.490).
"""

import argparse
import string
from collections.abc import Iterator, Sequence

import torch
from text import ALPHABET, CharacterModel, corpus
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from training import DTYPES, Results, States, loss_curve, parser, picture, train

import seqcells
from seqcells.data import ContiguousWindows


class Carried:
    """A model that keeps the states of its ``layer`` from call to call, without their gradients: input (T, N) → output.

    A layer of seqcells keeps its own states if it is ``stateful``. For a layer of torch.nn the states are passed on:
    the model takes ``(input, hx)`` and gives its output and its states. Pass ``layer`` if the model is wrapped.
    """

    def __init__(self, model: nn.Module, layer: nn.Module | None = None) -> None:
        self.model, self.layer, self.hx = model, layer or model.layer, None
        self.by_itself = isinstance(self.layer, seqcells.RecurrentLayer)
        if self.by_itself:
            self.layer.stateful = True

    @property
    def states(self) -> States | None:
        return self.layer.states if self.by_itself else self.hx

    @states.setter
    def states(self, states: States | None) -> None:
        if self.by_itself:
            self.layer.states = states
        else:
            self.hx = states

    def __call__(self, input: Tensor) -> Tensor:
        output, hx = self.model(input, self.hx)
        if not self.by_itself:
            self.hx = tuple(state.detach() for state in hx) if isinstance(hx, tuple) else hx.detach()
        return output

    def reset_states(self) -> None:
        self.states = None


def keys(limit: int) -> Tensor:
    """A made-up text in which only one character in each group depends on the distant past:
    ``B......?bA...?aD.....?d``.

    The last capital determines the letter after a question mark, and no character between them does. The number of dots
    is random.
    """
    chance, text = torch.Generator().manual_seed(0), ""
    while len(text) < limit:
        key, dots = torch.randint(4, (), generator=chance), torch.empty(()).geometric_(0.2, generator=chance)
        text += f"{string.ascii_uppercase[key]}{'.' * int(dots)}?{string.ascii_lowercase[key]}"
    return torch.tensor([ALPHABET[character] for character in text[:limit]])


TEXTS = {"library": corpus, "keys": keys}


def main(arguments: Sequence[str] | None = None) -> Results:
    """Train, then read the held-out tenth of the text; return the losses, and the nats for each character of it."""
    options = parser(__doc__.splitlines()[0], steps=1000)
    options.add_argument("--text", choices=TEXTS, default="library")
    options.add_argument("--length", type=int, default=20, help="characters that gradients go back")
    options.add_argument("--characters", type=int, default=1_000_000, help="of the text that are used")
    options.add_argument("--stateful", action=argparse.BooleanOptionalAction, default=True, help="carry the states")
    options = options.parse_args(arguments)
    torch.manual_seed(options.seed)
    model = CharacterModel(options).to(options.device, DTYPES[options.dtype])
    text = TEXTS[options.text](options.characters).to(options.device)
    held_out, known = text.tensor_split([len(text) // 10])
    read = Carried(model)

    def losses_of(text: Tensor) -> Iterator[Tensor]:
        """The loss of each window of a text, in order."""
        read.reset_states()
        for input, target in ContiguousWindows(text, options.batch, options.length):
            if not options.stateful:
                read.reset_states()
            yield cross_entropy(read(input).flatten(0, 1), target.flatten())

    def again_and_again() -> Iterator[Tensor]:
        while True:
            yield from losses_of(known)

    endless = again_and_again()
    losses = train(options, model, lambda chance: next(endless))
    with torch.no_grad():
        nats = torch.stack([*losses_of(held_out)]).double().mean().item()
    print(f"a character held out costs {nats:.3f} nats, the states {'carried' if options.stateful else 'dropped'}")
    picture(options, loss_curve(losses))
    return Results(losses, {"held out": nats})


if __name__ == "__main__":
    main()
