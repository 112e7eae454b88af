"""Microseconds a time step of the cluster plan's kernels alone, beside the persistent plan's whole pass. A prototype,
the kernel by hand that the plan was modelled on, prints such figures too."""

import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

from seqcells import cells
from seqcells.backends import engine_of
from seqcells.kernels.triton.plans import cluster
from seqcells.request.recurrence import Backward, Recurrence
from seqcells.request.weights import Weights

from ..timing.worker import one_line

STEPS = 512
TURNS = 9
NVCC = "-O3", "-std=c++17", "-gencode", "arch=compute_90a,code=sm_90a"


class Shape(NamedTuple):
    """What is measured."""

    cell: str
    dtype: str
    hidden: int
    batch: int


SHAPES = [
    *(Shape("LSTM", "bfloat16", hidden, batch) for hidden, batch in ((512, 8), (256, 8), (128, 16))),
    *(Shape("LSTM", "bfloat16", hidden, batch) for hidden, batch in ((512, 56), (512, 112), (256, 112), (128, 256))),
    *(Shape("GRU", "bfloat16", hidden, 8) for hidden in (512, 256, 128)),
    Shape("LSTM", "float16", 768, 16),
    Shape("LSTM", "float32", 128, 16),
    *(Shape(cell, "bfloat16", 256, 16) for cell in ("PeepholeLSTM", "CIFG", "JANET", "SLSTM", "LiGRU", "RNNTanh")),
    *(Shape(cell, "bfloat16", 256, 16) for cell in ("GRUResetBefore", "MultiplicativeLSTM", "RecurrentHighway")),
]
"""First the shapes of the table that the plan was designed by."""


def measured(commit: str, prototype: str | None) -> Iterator[dict[str, Any]]:
    """Yield an event for each shape: microseconds a step, forward and backward, or ``error``. The figures are of the
    cluster plan's kernels alone and of the persistent plan's whole pass. If a prototype is given, its output lines come
    first."""
    yield from _by_hand(prototype)
    for shape in SHAPES:
        found: dict[str, Any] = {"cluster": " ".join(map(str, shape)), "commit": commit}
        for name, measure in (("kernels", _kernels), ("persistent", _persistent)):
            try:
                found[name] = measure(shape)
            except Exception as problem:  # go on with the other plan
                found[f"{name}_error"] = one_line(problem)
        yield found


def _by_hand(prototype: str | None) -> Iterator[dict[str, Any]]:
    if prototype is None:
        return
    nvcc = shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc"
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder, "prototype")
        subprocess.run([nvcc, *NVCC, prototype, "-o", made], check=True, capture_output=True)
        ran = subprocess.run([made], capture_output=True, text=True, timeout=60)
    yield from ({"by_hand": line} for line in ran.stdout.splitlines())


def _recurrence(shape: Shape) -> tuple[Recurrence, Any]:
    """A recurrence of random tensors, and the function that draws the gradients for backward."""
    cell, dtype = getattr(cells, shape.cell), getattr(torch, shape.dtype)
    generator = torch.Generator("cuda").manual_seed(0)

    def random(*size: int) -> torch.Tensor:
        return torch.randn(*size, generator=generator, device="cuda").to(dtype)

    roles = Weights.roles(cell, True, False)
    tensors = [random(*Weights.shape(role, cell, 1, shape.hidden, 0)) / shape.hidden**0.5 for role in roles]
    weights = Weights.of(roles, tensors).recurrent
    outside = random(STEPS, shape.batch, len(cell.gates) * shape.hidden)
    states = [random(1, shape.batch, shape.hidden) for _ in cell.states]
    return Recurrence(cell, outside, states, [weights]), random


def _passes(shape: Shape, engine: Any) -> dict[str, Callable[[], Any]]:
    """Inference, forward and backward of an engine, as calls."""
    q, random = _recurrence(shape)
    output, final, saved = engine.forward(q, True)
    wanted = q.replaced([True for _ in q.differentiable()])
    given = Backward(output, saved, random(*output.shape), [random(*each.shape) for each in final], wanted)
    return {
        "inference": lambda: engine.forward(q, False),
        "forward": lambda: engine.forward(q, True),
        "backward": lambda: engine.backward(q, given),
    }


def _kernels(shape: Shape) -> dict[str, float]:
    """The last launch of each pass, repeated with the same arguments."""
    found, launched, launch = {}, [], cluster.launch

    def noted(*given: Any) -> None:
        launched.append(given)
        launch(*given)

    cluster.launch = noted
    try:
        for name, call in _passes(shape, cluster).items():
            launched.clear()
            kept = call()  # keeps the memory that the kernel writes to
            found[name] = _seconds(lambda given=launched[-1]: launch(*given)) / STEPS * 1e6
            del kept
    finally:
        cluster.launch = launch
    return found


def _persistent(shape: Shape) -> dict[str, float]:
    """The whole pass, with the products around the kernel."""
    engine = engine_of("triton-persistent")
    return {name: _seconds(call) / STEPS * 1e6 for name, call in _passes(shape, engine).items()}


def _seconds(call: Callable[[], Any]) -> float:
    """The median, by CUDA events."""
    taken = []
    for _ in range(TURNS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        call()
        end.record()
        end.synchronize()
        taken.append(begin.elapsed_time(end) * 1e-3)
    return statistics.median(taken)
