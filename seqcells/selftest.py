"""``python -m seqcells.selftest``: checks that the backends on this machine compute what the equations say.

Each layer runs forward and backward by each backend. All results are compared with the reference's in float64. Their
distance may be twice the distance of the reference in their own dtype. It takes two minutes at most. Please add its
output to a bug report.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import info
from .backends import BACKENDS
from .cells import REGISTRY, Cell, activations
from .derive.expressions import reachable
from .derive.trace import equations
from .modules.define import define
from .modules.layers import GRU, LSTM, RNN
from .modules.recurrent_layer import RecurrentLayer

SECONDS = 110.0
"""The time after which no further layer begins."""
DTYPES = torch.float32, torch.float64, torch.bfloat16, torch.float16
SIZES = (5, 3, 4, 6), (7, 17, 33, 100), (1, 2, 8, 1)
"""Numbers of steps, sequences, features and hidden units."""


class Case(NamedTuple):
    """A layer, and the kind of its call."""

    cell: str
    sizes: tuple[int, int, int, int]
    dtype: torch.dtype
    options: dict[str, Any]
    boundaries: bool

    def __str__(self) -> str:
        steps, batch, features, hidden = self.sizes
        more = [*self.options, *(["lengths and reset"] if self.boundaries else [])]
        kind = str(self.dtype).removeprefix("torch.")
        return f"{self.cell} {kind} T{steps} B{batch} F{features} H{hidden} {', '.join(more) or 'plain'}"


class Outcome(NamedTuple):
    """The largest distance of a backend's results from the reference's in float64, in units of the allowed distance."""

    case: Case
    backend: str
    device: str
    distance: float
    problem: str = ""

    @property
    def passed(self) -> bool:
        return not self.problem and self.distance <= 1


def cases() -> Iterator[Case]:
    """The layers to check, the most informative first."""
    several = {"num_layers": 2, "bidirectional": True}
    for dtype, sizes in itertools.product(DTYPES, SIZES):
        for name in ("lstm", "gru"):
            yield Case(name, sizes, dtype, {}, False)
            yield Case(name, sizes, dtype, several, True)
    for dtype in DTYPES[:3]:
        yield Case("lstm", SIZES[0], dtype, {"proj_size": 3}, False)
        for name in REGISTRY:
            if name not in ("lstm", "gru"):
                yield Case(name, SIZES[0], dtype, {}, False)
                yield Case(name, SIZES[1], dtype, several, True)


def check(case: Case, backends: Sequence[tuple[str, str]]) -> Iterator[Outcome]:
    """The outcome of a case for each pair of a backend and a device. Backends that refuse the call are left out."""
    torch.manual_seed(0)
    layer = layer_of(case)
    inputs = given(case, layer)
    truth = _results(layer, inputs, case, torch.float64, "cpu", "reference")
    own = _results(layer, inputs, case, case.dtype, "cpu", "reference")
    # A reference that is exact by chance must not demand the same of other backends. In float64 the reference is the
    # standard, but has rounding errors itself, visible in sums near zero: the tolerance is then that of the tests.
    least = 1e-12 if case.dtype == torch.float64 else 8 * torch.finfo(case.dtype).eps
    distance = _distance_as_a_whole if has_jumps(REGISTRY[case.cell]) else _distance
    allowed = [2 * distance(a, b) + least for a, b in zip(own, truth, strict=True)]
    for backend, device in backends:
        try:
            found = _results(layer, inputs, case, case.dtype, device, backend)
        except Exception as error:
            refused = isinstance(error, RuntimeError) and "cannot run this call" in str(error)
            if not refused:
                yield Outcome(case, backend, device, float("inf"), f"{type(error).__name__}: {error}")
            continue
        distances = [distance(a, b) / most for a, b, most in zip(found, truth, allowed, strict=True)]
        yield Outcome(case, backend, device, max(distances))


def layer_of(case: Case) -> RecurrentLayer:
    """The layer of a case, in float64. Its cell is found in the registry."""
    named = {"lstm": LSTM, "gru": GRU}
    if case.cell.startswith("rnn_"):
        kind, options = RNN, {"nonlinearity": case.cell.removeprefix("rnn_")}
    else:
        kind, options = named.get(case.cell) or define(REGISTRY[case.cell])[0], {}
    _, _, features, hidden = case.sizes
    return kind(features, hidden, **options, **case.options, dtype=torch.float64)


def given(case: Case, layer: RecurrentLayer) -> tuple[Tensor, dict[str, Tensor]]:
    """The input and the keyword arguments of a call: boundaries, and streams, which are positive like times."""
    steps, batch, features, hidden = case.sizes
    input = torch.randn(steps, batch, features, dtype=torch.float64)
    sizes = {"T": steps, "B": batch, "F": features, "N": layer.cell.heads(), **layer.cell.sizes_by_letter(hidden)}
    streams = {name: axes for name, axes in layer.cell.streams.items() if name != "input"}
    found = {name: torch.rand([sizes[axis] for axis in axes], dtype=torch.float64) for name, axes in streams.items()}
    if case.boundaries:
        found |= {"lengths": torch.randint(0, steps + 1, (batch,)), "reset": torch.rand(steps, batch) < 0.3}
    return input, found


def _results(
    layer: RecurrentLayer,
    given: tuple[Tensor, dict[str, Tensor]],
    case: Case,
    dtype: torch.dtype,
    device: str,
    backend: str,
) -> list[Tensor]:
    """Output, final states and all gradients, returned in float64. Weights and input are first rounded to the case's
    dtype."""
    input, others = given
    parameters = [p.detach().to(case.dtype).to(device, dtype).requires_grad_() for p in layer.parameters()]
    input = input.to(case.dtype).to(device, dtype).requires_grad_()
    layer.backend = backend
    named = dict(zip((name for name, _ in layer.named_parameters()), parameters, strict=True))
    others = {name: t.to(device, dtype) if t.is_floating_point() else t.to(device) for name, t in others.items()}
    output, final = torch.func.functional_call(layer, named, (input,), others)
    results = [output, *((final,) if isinstance(final, Tensor) else final)]
    seeds = [torch.linspace(-1, 1, r.numel(), dtype=dtype, device=device).view(r.shape) for r in results]
    gradients = torch.autograd.grad(results, [input, *parameters], seeds)
    return [tensor.detach().to("cpu", torch.float64) for tensor in (*results, *gradients)]


def _distance(found: Tensor, truth: Tensor) -> float:
    """The largest difference, relative to the largest true value, or to 1e-3 if that is larger."""
    if not truth.numel():
        return 0.0
    worst = float((found - truth).abs().max()) / max(float(truth.abs().max()), 1e-3)
    return worst if worst == worst else float("inf")


def _distance_as_a_whole(found: Tensor, truth: Tensor) -> float:
    """The norm of the difference, relative to the norm of the true values, or to 1e-3 if that is larger."""
    whole = float((found - truth).norm()) / max(float(truth.norm()), 1e-3)
    return whole if whole == whole else float("inf")


def has_jumps(cell: type[Cell]) -> bool:
    """Whether a cell's gradients jump at a kink, as those of ReLU do.

    Rounding decides on which side of the kink a sum near zero lies. One such sum among many determines the largest
    difference, for every backend, but not the norm of all differences.
    """
    return any(value.op in (activations.relu, activations.leaky_relu) for value in reachable(equations(cell).new))


def backends_here() -> list[tuple[str, str]]:
    """Pairs of each backend that exists on this machine and each device on which it is tried."""
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    here = [name for name, backend in BACKENDS.items() if not backend.why_not_available()]
    return [(name, device) for device in devices for name in (*here, "auto")]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the checks and print their results. Returns 1 if a check fails, else 0."""
    parser = argparse.ArgumentParser(
        prog="python -m seqcells.selftest", description=(__doc__ or "").partition("\n\n")[0]
    )
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"the limit of time; default: {SECONDS:.0f}")
    seconds = parser.parse_args(arguments).seconds
    print(info.report(), end="\n\n")
    begin, backends, left = time.monotonic(), backends_here(), list(cases())
    outcomes: list[Outcome] = []
    while left:
        outcomes += check(left.pop(0), backends)
        if time.monotonic() - begin > seconds:
            break
    for backend, device in backends:
        own = [outcome for outcome in outcomes if (outcome.backend, outcome.device) == (backend, device)]
        if own:
            failed = sum(not outcome.passed for outcome in own)
            worst = max(own, key=lambda outcome: outcome.distance)
            print(
                f"{backend} on {device}: {len(own)} layers, {failed} failed; "
                f"the farthest at {worst.distance:.2f} of what it may be, {worst.case}"
            )
    failures = [outcome for outcome in outcomes if not outcome.passed]
    for outcome in failures:
        print(f"FAILED {outcome.backend} on {outcome.device}: {outcome.case}: {outcome.problem or outcome.distance}")
    more = f"; {len(left)} kinds of layers were left out for lack of time" if left else ""
    print(f"{len(outcomes) - len(failures)} of {len(outcomes)} as they should be{more}")
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
