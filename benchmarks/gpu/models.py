"""Small models around a recurrent layer: a training step by torch.nn, by torch.nn again, and after `seqcells.swap`."""

import copy
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import seqcells

from ..providers import AA, BASELINE
from ..timing import MINUTES
from ..timing.worker import one_line

OURS = "seqcells swap"


class Language(nn.Module):
    """Words (T, N) → logits (T, N, words), by an LSTM of two layers."""

    def __init__(self, words: int, hidden: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, hidden)
        self.layers = nn.LSTM(hidden, hidden, num_layers=2)
        self.head = nn.Linear(hidden, words)

    def forward(self, words: Tensor) -> Tensor:
        return self.head(self.layers(self.embedding(words))[0])


class Tagger(nn.Module):
    """Words (T, N) → logits (T, N, tags), by a bidirectional GRU."""

    def __init__(self, words: int, hidden: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, hidden)
        self.layers = nn.GRU(hidden, hidden, bidirectional=True)
        self.head = nn.Linear(2 * hidden, words)

    def forward(self, words: Tensor) -> Tensor:
        return self.head(self.layers(self.embedding(words))[0])


# Batch, hidden units and time steps: the benchmark's B × H × T.
MODELS: dict[str, tuple[type[nn.Module], tuple[int, int, int]]] = {
    "language model, 2 layers of LSTM": (Language, (32, 512, 128)),
    "tagger, GRU in both directions": (Tagger, (32, 256, 100)),
}
TINY = 2, 8, 3


def measured(commit: str, rehearsal: bool) -> Iterator[dict[str, Any]]:
    """Yield an event for each model: its name, size and dtype, with its times or ``error``. The times are the median
    seconds of a step by provider, and the ratio of torch.nn to itself (``aa``)."""
    device, dtype = ("cpu", torch.float32) if rehearsal else ("cuda", torch.bfloat16)
    for name, (kind, size) in MODELS.items():
        batch, hidden, steps = TINY if rehearsal else size
        found: dict[str, Any] = {"model": name, "batch": batch, "hidden": hidden, "steps": steps, "commit": commit}
        found["dtype"] = str(dtype).removeprefix("torch.")
        try:
            torch.manual_seed(0)
            baseline = kind(16 if rehearsal else 1000, hidden).to(device, dtype)
            words = torch.randint(0, baseline.head.out_features, (steps + 1, batch), device=device)
            swapped = copy.deepcopy(baseline)
            seqcells.swap(swapped)
            calls = {BASELINE: _training(baseline, words), AA: _training(copy.deepcopy(baseline), words)}
            calls[OURS] = _training(swapped, words)
            found["seconds"] = _taking_turns(calls, device)
            found["aa"] = found["seconds"][BASELINE] / found["seconds"][AA]
        except Exception as problem:  # go on with the other model
            found["error"] = one_line(problem)
        yield found


def _training(model: nn.Module, words: Tensor) -> Callable[[], None]:
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

    def step() -> None:
        optimizer.zero_grad()
        cross_entropy(model(words[:-1]).flatten(0, 1).float(), words[1:].flatten()).backward()
        optimizer.step()

    return step


def _taking_turns(calls: dict[str, Callable[[], None]], device: str) -> dict[str, float]:
    """The median seconds of each call; calls take turns. The measurement repeats while torch.nn differs from itself."""
    synchronize = torch.cuda.synchronize if device == "cuda" else lambda: None
    turns, attempts = (20, 1 + MINUTES.extensions) if device == "cuda" else (2, 1)
    for call in calls.values():
        for _ in range(3):
            call()
    for _ in range(attempts):
        taken: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(turns):
            for name, call in calls.items():
                synchronize()
                began = time.perf_counter()
                call()
                synchronize()
                taken[name].append(time.perf_counter() - began)
        found = {name: statistics.median(seconds) for name, seconds in taken.items()}
        if abs(found[BASELINE] / found[AA] - 1) <= MINUTES.band:
            break
    return found
