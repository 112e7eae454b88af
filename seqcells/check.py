"""``python -m seqcells.check module:Cell``: a report on a cell for its author.

The report lists the cell's stages and the values they keep for backward. It tells whether the gradients are correct,
and whether kernels compute what the equations say. It also has the registers that kernels use on a GPU, and the times
of calls beside the most similar cell of torch.nn.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.gradcheck import GradcheckError

from . import cells, selftest, tune
from .backends import BACKENDS
from .cell_argument import SPELLING, cell_named, place_of
from .cells import Cell
from .derive.derivation import derive
from .derive.expressions import DerivationError, Expression, Product
from .derive.program import Program
from .derive.transformed_cells import for_engines
from .modules.layers import GRU, LSTM, RNN
from .modules.recurrent_layer import RecurrentLayer

TIMED = (1, 128), (32, 256)
"""Pairs of rows and hidden units of the timed calls."""
STEPS = 100


def stages(cell: type[Cell]) -> Iterator[str]:
    """Lines on what each stage of a step gathers, and on the values that forward keeps for backward.

    Raises:
        DerivationError: `step` has no graph. The error names the line.
    """
    derived = derive(for_engines(cell))
    for name, one in (("forward", derived.forward), ("backward", derived.backward)):
        yield f"{name}: {_stages(one)}"
    sizes: dict[str, list[str]] = {}
    for name, value in derived.saved.items():
        sizes.setdefault(value.unit_axis or "1", []).append(derived.forward.names.get(value, name))
    words = "; ".join(f"{', '.join(names)} ({size} numbers each)" for size, names in sizes.items())
    yield f"kept for backward besides the states, of each step and sequence: {words or 'nothing'}"


def _stages(program: Program) -> str:
    gathered = [", ".join(sorted({*map(_in_words, stage.gathers)})) for stage in program.stages[1:]]
    words = [words for words in gathered if words]
    if len(words) < 2:
        return f"1 stage, after {words[0] if words else 'nothing'}"
    return f"{len(words)} stages, after {'; then '.join(words)}"


def _in_words(value: Expression) -> str:
    if isinstance(value.op, Product):
        return f"the product with {value.op.weight}{' transposed' if value.op.transposed else ''}"
    return f"the {getattr(value.op, 'name', value.op)} over units"


def gradients(cell: type[Cell]) -> str:
    """A sentence on whether the reference's gradients equal finite differences, in float64."""
    hidden = 2 * cell.heads()
    case = case_of(cell, (3, 2, 3, hidden), torch.float64)
    module = selftest.layer_of(case)
    module.backend = "reference"
    input, streams = selftest.given(case, module)
    names = [name for name, _ in module.named_parameters()]

    def run(x: Tensor, *parameters: Tensor) -> Tensor:
        return torch.func.functional_call(module, dict(zip(names, parameters, strict=True)), (x,), streams)[0]

    try:
        torch.autograd.gradcheck(run, (input.requires_grad_(), *module.parameters()))
    except GradcheckError as wrong:
        first = next(line for line in str(wrong).splitlines() if line)
        return f"the reference's differ from finite differences, as at a kink or behind a stop(): {first}"
    return "the reference's are those of finite differences"


def case_of(cell: type[Cell], sizes: tuple[int, int, int, int], dtype: torch.dtype, **more: Any) -> selftest.Case:
    """The case of a layer of the cell. If sizes of the cell depend on the input's size, it is a single layer."""
    steps, batch, features, hidden = sizes
    boundaries = more.pop("boundaries", False)
    if cell.streams.get("input") == "TBH":
        features, more = hidden, {}
    if any(axes.endswith("F") for axes in (*cell.streams.values(), *cell.state_sizes.values())):
        more = {}
    return selftest.Case(cell.base.name, (steps, batch, features, hidden), dtype, {**cell.options, **more}, boundaries)


def agreement(cell: type[Cell]) -> Iterator[tuple[bool, str]]:
    """For each backend: whether its results match the equations, and a line with the largest distance."""
    sizes = 5, 3, 4, 6 * cell.heads()
    here = [each for each in selftest.backends_here() if BACKENDS.get(each[0]) and BACKENDS[each[0]].engine]
    found: dict[tuple[str, str], list[selftest.Outcome]] = {each: [] for each in here}
    for dtype in selftest.DTYPES[:3]:
        cases = (
            case_of(cell, sizes, dtype),
            case_of(cell, sizes, dtype, num_layers=2, bidirectional=True, boundaries=True),
        )
        for outcome in (outcome for case in cases for outcome in selftest.check(case, here)):
            found[outcome.backend, outcome.device].append(outcome)
    for (backend, device), outcomes in found.items():
        if outcomes:
            worst = max(outcomes, key=lambda outcome: outcome.distance)
            passed = all(outcome.passed for outcome in outcomes)
            words = worst.problem or f"{worst.distance:.2f} of what they may be off, {worst.case}"
            yield passed, f"{backend} on {device}: {'as the equations say' if passed else 'WRONG'}; at most {words}"
        else:
            yield True, f"{backend} on {device}: {_why_not(cell, sizes, backend, device)}"


def _why_not(cell: type[Cell], sizes: tuple[int, int, int, int], backend: str, device: str) -> str:
    layer = selftest.layer_of(case_of(cell, sizes, torch.float32)).to(device, torch.float32)
    layer.backend = backend
    try:
        return layer.plan(torch.zeros(1, 1, layer.input_size, device=device)).reason
    except RuntimeError as reason:
        return str(reason)


def nearest(cell: type[Cell]) -> type[RecurrentLayer]:
    """Our counterpart of the torch.nn layer most similar to the cell, by the numbers of states and gates."""
    return LSTM if len(cell.states) > 1 else GRU if len(cell.gates) > 1 else RNN


def times(cell: type[Cell], device: str) -> Iterator[str]:
    """Lines with the times of calls, and of calls of the `nearest` layer, measured in turns."""
    other = nearest(cell)
    for (rows, hidden), training in itertools.product(TIMED, (False, True)):
        case = case_of(cell, (STEPS, rows, hidden, -(-hidden // cell.heads()) * cell.heads()), torch.float32)
        own = selftest.layer_of(case).to(device, torch.float32)
        its = other(case.sizes[2], case.sizes[3], device=device)
        input, streams = (_to(each, device) for each in selftest.given(case, own))
        runs = {"own": _runner(own, input, streams, training), "its": _runner(its, input, {}, training)}
        mine, theirs = tune.timed(runs, torch.cuda.synchronize if device == "cuda" else None).values()
        with torch.set_grad_enabled(training):
            backend = own.plan(input).backend
        kind = f"{device} {'training' if training else 'inference'} B{rows} H{case.sizes[3]} T{STEPS}"
        if mine is None or theirs is None:
            yield f"{kind}: cannot run"
        else:
            ratio = f"{mine / theirs:.2f} times the {theirs * 1e3:.3g} ms of {other.__name__}"
            yield f"{kind}: {mine * 1e3:.3g} ms by {backend}, {ratio}"


def _to(given: Any, device: str) -> Any:
    if isinstance(given, dict):
        return {name: _to(tensor, device) for name, tensor in given.items()}
    return given.to(device, torch.float32) if given.is_floating_point() else given.to(device)


def _runner(layer: RecurrentLayer, input: Tensor, streams: dict[str, Any], training: bool) -> Callable[[], object]:
    def infer() -> object:
        with torch.no_grad():
            return layer(input, **streams)

    def train() -> object:
        return torch.autograd.grad(layer(input, **streams)[0].sum(), [*layer.parameters()], allow_unused=True)

    return train if training else infer


def of_a_gpu() -> Iterator[str]:
    """Lines with the registers and spills of all kernels that this process has launched."""
    for name, module in [*sys.modules.items()]:
        if not name.startswith("seqcells.kernels.triton.device"):
            continue
        for kernel in vars(module).values():
            for compiled in getattr(kernel, "device_caches", {}).values():
                for each in compiled[0].values():
                    yield f"{kernel.fn.__name__}: {each.n_regs} registers a thread, {each.n_spills} bytes spilled"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the report. Returns 1 if the cell has no graph, or if kernels give wrong results; else 0."""
    parser = argparse.ArgumentParser(prog="python -m seqcells.check", description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("cell", type=cell_named, metavar="module:Cell", help=SPELLING)
    parser.add_argument("--no-times", action="store_true", help="measure no times")
    options = parser.parse_args(arguments)
    cell = options.cell
    try:
        cells.register(cell)
    except ValueError as problem:
        parser.error(str(problem))
    print(f"{cell.name}, {place_of(cell)}: gates {', '.join(cell.gates) or 'none'}; states {', '.join(cell.states)}")
    try:
        print(*stages(cell), sep="\n")
    except DerivationError as reason:
        print(f"no kernels can be derived: {reason}")
        return 1
    print(f"gradients: {gradients(cell)}", flush=True)
    failed = False
    for fine, line in agreement(cell):
        failed |= not fine
        print(line, flush=True)
    for line in of_a_gpu() if torch.cuda.is_available() else ["registers and spills: there is no GPU here"]:
        print(line)
    if not options.no_times:
        for device in ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]:
            for line in times(cell, device):
                print(line, flush=True)
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
