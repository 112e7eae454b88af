"""Calls of the Triton engines whose launches cover every shipped kernel in its shipped configurations."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor

import seqcells
from seqcells.backends import BACKENDS, engine_of
from seqcells.cells import REGISTRY, Cell
from seqcells.kernels.triton.plans.shape import Shape
from seqcells.request.call import Call
from seqcells.request.recurrence import Backward, Recurrence
from seqcells.request.weights import Weights

from ..case import DTYPES
from .launches import Launched, Target, recorded

TRITONS = tuple(name for name in BACKENDS if name.startswith("triton"))
# What a call may have besides a plain layer, in any combination, joined by +.
BATCHES = {"single": 1, "batched": 64, "many": 1024}
LAYERS = {"two-layers": 2, "four-layers": 4}  # the number of stacked layers in one launch
OPTIONS = ("boundaries", "projection", "recompute", "reverse", "bidirectional", "ieee", "flags", *LAYERS, *BATCHES)
VARIANTS = (
    *("plain", "boundaries", "projection", "boundaries+projection", "recompute", "boundaries+recompute"),
    *("bidirectional+boundaries", "single+boundaries", "ieee+boundaries", "ieee+single", "flags+boundaries"),
)
PASSES = ("inference", "forward", "backward")  # forward: as in training, where it keeps what backward reads


@dataclass(frozen=True)
class Case:
    """One layer: inference, forward for training, and backward."""

    backend: str
    cell_name: str
    dtype_name: str
    hidden: int
    variant: str = "plain"
    """``plain``, or some of `OPTIONS` joined by +, with at most one of `LAYERS` and one of `BATCHES`. ``ieee`` is a
    precision; with ``flags``, the persistent plan's programs wait by flags."""

    def __post_init__(self) -> None:
        if unknown := self.options - {*OPTIONS}:
            raise ValueError(f"no such options: {', '.join(sorted(unknown))}; there are {', '.join(OPTIONS)}")

    def __str__(self) -> str:
        return f"{self.backend} {self.cell_name} {self.dtype_name} H={self.hidden} {self.variant}"

    @property
    def cell(self) -> type[Cell]:
        return REGISTRY[self.cell_name]

    @property
    def options(self) -> frozenset[str]:
        return frozenset(self.variant.split("+")) - {"plain"}

    def why_not(self, target: Target) -> str | None:
        """Why there are no kernels for the case on ``target``, or None."""
        if "projection" in self.options and not self.cell.projection:
            return f"the {self.cell_name} cell reads its hidden state other than through the product"
        if self.options & {*LAYERS} and self.backend != "triton-persistent":
            return "it takes one layer at a time, or several as triton-persistent does"
        chosen = BACKENDS[self.backend]
        if not hasattr(engine_of(self.backend), "forward"):
            return chosen.why_not_available()
        asked = [("boundaries", "lengths"), ("boundaries", "reset"), ("projection", "projection")]
        options = tuple(name for option, name in asked if option in self.options)
        call = Call(self.cell, "recurrence", torch.device("cuda"), DTYPES[self.dtype_name], options)
        with recorded(target):
            return chosen.why_not(call)

    def launches(self, target: Target, steps: int = 3, batch: int = 16) -> list[tuple[str, Launched]]:
        """The engine's launches for the case on ``target``, in order, each with one of `PASSES`; empty if the engine
        refuses."""
        found = []
        with recorded(target) as launches:
            for name in self._run(steps, batch):
                found += [(name, launched) for launched in launches]
                launches.clear()
        return found

    def _run(self, steps: int, batch: int) -> Iterator[str]:
        """Call the engine, and yield the name of the pass after each call."""
        engine = engine_of(self.backend)
        with ExitStack() as stack:
            # its calls that the persistent plan runs have their rows under triton-persistent
            if self.backend == "triton":
                stack.enter_context(seqcells.settings(meeting=False))
            asked = {name: True for name in ("recompute", "flags") if name in self.options}
            if "ieee" in self.options:
                asked["precision"] = "ieee"
            stack.enter_context(seqcells.settings(**asked))
            q = self._recurrence(steps, next((BATCHES[name] for name in BATCHES if name in self.options), batch))
            if hasattr(engine, "why_not") and engine.why_not(Shape.of(q)):
                return
            engine.forward(q, False)
            yield "inference"
            if q.stacked and engine.seconds(Shape.of(q), gradients=True) is None:
                return
            output, final, saved = engine.forward(q, True)
            yield "forward"
            gradients = torch.empty_like(output), [torch.empty_like(f) for f in final]
            engine.backward(q, Backward(output, saved, *gradients, q.replaced([True] * len(q.differentiable()))))
            yield "backward"

    def _recurrence(self, steps: int, batch: int) -> Recurrence:
        layers = next((LAYERS[name] for name in LAYERS if name in self.options), 0)
        directions = layers or 1 + ("bidirectional" in self.options)
        size = self.hidden // 2 if "projection" in self.options else 0
        roles = Weights.roles(self.cell, bias=True, projection=size > 0)
        shapes = [Weights.shape(role, self.cell, self.hidden, self.hidden, size) for role in roles]
        widths = [size or self.hidden, *(self.hidden for _ in self.cell.states[1:])]
        given = {}
        if "boundaries" in self.options:
            given["lengths"] = torch.empty(batch, dtype=torch.int64, device="meta")
            given["reset"] = torch.empty(steps, batch, dtype=torch.bool, device="meta")
            given["reset_states"] = [self._empty((directions, batch, width)) for width in widths]
        return Recurrence(
            self.cell,
            self._empty((steps, batch, (1 if layers else directions) * len(self.cell.gates) * self.hidden)),
            [self._empty((directions, batch, width)) for width in widths],
            [Weights.of(roles, [self._empty(shape) for shape in shapes]) for _ in range(directions)],
            reverse="reverse" in self.options,
            stacked=layers > 0,
            **given,
        )

    def _empty(self, shape: Sequence[int]) -> Tensor:
        return torch.empty(shape, dtype=DTYPES[self.dtype_name], device="meta")


def cases(
    cells: Iterable[str] = REGISTRY,
    dtypes: Iterable[str] = ("bfloat16", "float16", "float32", "float64"),
    hidden: Iterable[int] = (512, 650),
    variants: Iterable[str] = VARIANTS,
    backends: Iterable[str] = TRITONS,
) -> list[Case]:
    """All combinations; some may be refused."""
    return [Case(*each) for each in itertools.product(backends, cells, dtypes, hidden, variants)]
