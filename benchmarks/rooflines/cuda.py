"""The GPU's rates: GEMM by dtype, a copy through memory, a launch, a barrier of the whole grid."""

import statistics
from collections.abc import Callable
from typing import Any

import torch

from ..case import DTYPES


def measure(dtypes: list[str]) -> dict[str, Any]:
    """Measure all rates. A rate that cannot be measured is None, and ``missing`` has the reason."""
    found: dict[str, Any] = {
        "gemm_flops": {dtype: gemm(dtype) for dtype in dtypes},
        "copy": copy(),
        "launch": launch(),
        "graph_launch": graph_launch(),
        "grid_barrier": None,
    }
    try:
        found["grid_barrier"] = grid_barrier()
    except Exception as problem:  # no triton, or triton cannot compile here: the other rooflines stand
        found["missing"] = f"no grid barrier, no rooflines: {type(problem).__name__}: {problem}"
    return found


def gemm(dtype: str, size: int = 4096) -> float:
    """Operations a second of a large square product."""
    torch.backends.cuda.matmul.allow_tf32 = dtype == "tf32"
    a, b = (torch.randn(size, size, device="cuda").to(DTYPES[dtype]) for _ in range(2))
    return 2 * size**3 / _best(lambda: torch.mm(a, b))


def copy(size: int = 2**30) -> float:
    """Bytes a second of a copy through memory, reads and writes added."""
    source = torch.empty(size, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * size / _best(lambda: target.copy_(source))


def launch(count: int = 1000) -> float:
    """Seconds of one small kernel in a row of launches."""
    one = torch.zeros(1, device="cuda")

    def many() -> None:
        for _ in range(count):
            one.add_(1)

    return _best(many, samples=5) / count


def graph_launch(count: int = 1000) -> float:
    """Seconds of one small kernel in a CUDA graph."""
    one = torch.zeros(1, device="cuda")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(count):
            one.add_(1)
    return _best(graph.replay, samples=5) / count


def grid_barrier(rounds: int = 1000) -> float:
    """Seconds of one barrier with a program on every multiprocessor."""
    from .grid_barrier import launch as meet

    programs = torch.cuda.get_device_properties(0).multi_processor_count
    arrived = torch.zeros(1, dtype=torch.int32, device="cuda")

    def run(count: int) -> None:
        arrived.zero_()
        meet(arrived, count, programs)

    # The difference cancels the launch and the clearing of the counter.
    return (_best(lambda: run(2 * rounds)) - _best(lambda: run(rounds))) / rounds


def _best(call: Callable[[], Any], samples: int = 15) -> float:
    """Seconds of one call: the median of the faster half of the samples."""
    for _ in range(3):
        call()
    marks = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(samples)]
    for start, end in marks:
        start.record()
        call()
        end.record()
    torch.cuda.synchronize()
    times = sorted(start.elapsed_time(end) * 1e-3 for start, end in marks)
    return statistics.median(times[: (samples + 1) // 2])
