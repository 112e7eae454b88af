"""An encoder and a decoder that reverse digits or add numbers: python examples/sequence_to_sequence.py [--task add]

The encoder reads a question, such as 12+345. Its final states are the initial states of the decoder, which writes the
answer, 357 (Sutskever et al. 2014, arXiv:1409.3215). In training the decoder reads the correct answer; afterwards it
reads its own.
"""

import argparse
import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from training import DTYPES, Results, final_states, loss_curve, parser, picture, recurrent, stepper, train

TOKENS = {token: index for index, token in enumerate("0123456789+.")}
"""The full stop begins an answer, and ends it."""
PADDING = -100
"""The target that `cross_entropy` ignores."""
DIGITS = {"reverse": 6, "add": 2}
"""The largest number of digits of a number, by task."""
ASKED = 1000
"""Questions that are drawn after training; repeated questions count once."""


def number(digits: int, chance: torch.Generator) -> str:
    """A number with 1 to ``digits`` digits."""
    count = torch.randint(1, digits + 1, (), generator=chance)
    return "".join(map(str, torch.randint(10, (count,), generator=chance).tolist()))


def exercise(options: argparse.Namespace, chance: torch.Generator) -> tuple[str, str]:
    """A question and its answer."""
    if options.task == "reverse":
        question = number(options.digits, chance)
        return question, question[::-1]
    a, b = (int(number(options.digits, chance)) for _ in range(2))
    return f"{a}+{b}", str(a + b)


def is_held_out(question: str) -> bool:
    """Whether the question is in the tenth that is held out from training."""
    return zlib.crc32(question.encode()) % 10 == 0


def exercises(options: argparse.Namespace, held_out: bool, chance: torch.Generator) -> Iterator[tuple[str, str]]:
    """An endless sequence of questions and answers; either all or none are held out."""
    while True:
        question, answer = exercise(options, chance)
        if is_held_out(question) == held_out:
            yield question, answer


def padded(exercises: Iterable[tuple[str, str]]) -> tuple[Tensor, Tensor, Tensor]:
    """Questions (T, N), their lengths (N,), answers with a full stop at both ends (T', N)."""
    questions, answers = zip(*((question, f".{answer}.") for question, answer in exercises), strict=True)
    tokens = [[torch.tensor([TOKENS[sign] for sign in text]) for text in texts] for texts in (questions, answers)]
    lengths = torch.tensor([*map(len, questions)])
    return pad_sequence(tokens[0]), lengths, pad_sequence(tokens[1], padding_value=PADDING)


class Answerer(nn.Module):
    """Questions (T, N) and answers so far (T', N) → logits of each answer's next token (T', N, tokens)."""

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(TOKENS), options.hidden)
        self.encoder = recurrent(options, options.hidden)
        self.decoder = recurrent(options, options.hidden)
        self.head = nn.Linear(options.hidden, len(TOKENS))

    def forward(self, questions: Tensor, lengths: Tensor, answers: Tensor) -> Tensor:
        hx = final_states(self.encoder, self.embedding(questions), lengths)
        output, _ = self.decoder(self.embedding(answers), hx)
        return self.head(output)

    @torch.no_grad()
    def answer(self, questions: Tensor, lengths: Tensor, count: int) -> Tensor:
        """Questions → the most likely token after the tokens before it (count, N)."""
        step = stepper(self.decoder, final_states(self.encoder, self.embedding(questions), lengths))
        answers = [torch.full_like(lengths, TOKENS["."])]
        while len(answers) <= count:
            answers.append(self.head(step(self.embedding(answers[-1]))).argmax(-1))
        return torch.stack(answers[1:])


def main(arguments: Sequence[str] | None = None) -> Results:
    """Train, then answer held-out questions; return the losses, and the shares of correct answers and tokens."""
    options = parser(__doc__.splitlines()[0], steps=1500)
    options.set_defaults(batch=64)
    options.add_argument("--task", choices=("reverse", "add"), default="reverse")
    options.add_argument("--digits", type=int, help="of a number at most; 6 to reverse, 2 to add")
    options = options.parse_args(arguments)
    if options.digits is None:
        options.digits = DIGITS[options.task]
    torch.manual_seed(options.seed)
    model = Answerer(options).to(options.device, DTYPES[options.dtype])

    def loss_of(chance: torch.Generator) -> Tensor:
        drawn = islice(exercises(options, False, chance), options.batch)
        questions, lengths, answers = (each.to(options.device) for each in padded(drawn))
        logits = model(questions, lengths, answers[:-1].clamp(min=0))
        return cross_entropy(logits.flatten(0, 1), answers[1:].flatten(), ignore_index=PADDING)

    losses = train(options, model, loss_of)
    chance = torch.Generator().manual_seed(options.seed + 1)
    asked = sorted({*islice(exercises(options, True, chance), ASKED)})
    questions, lengths, answers = (each.to(options.device) for each in padded(asked))
    answers = answers[1:]
    right = model.answer(questions, lengths, len(answers)) == answers
    counted = answers != PADDING
    scores = {
        "tokens": right[counted].double().mean().item(),
        "answers": (right | ~counted).all(0).double().mean().item(),
    }
    print(f"{scores['answers']:.1%} of {len(asked)} answers held out are right, {scores['tokens']:.1%} of their tokens")
    picture(options, loss_curve(losses))
    return Results(losses, scores)


if __name__ == "__main__":
    main()
