"""The CPU's rates: GEMM through torch; reads and thread barriers through a few lines of C (`cpu.c`)."""

import ctypes
import importlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from seqcells.backends import BACKENDS

from ..case import DTYPES

SIZES = [2**17, 2**18, 2**19, 2**20, 3 * 2**19, 5 * 2**19, 2**22, 2**23, 2**24, 2**25]
"""Bytes of weights: 128 kB to 32 MB (LSTM, float32: H=90 to 1450)."""


def measure(threads: int, dtypes: list[str]) -> dict[str, Any]:
    """Rates of one thread, and of ``threads`` threads."""
    library, why_not = _library()
    found: dict[str, Any] = {"by_threads": []}
    if why_not:
        found["missing"] = f"no bandwidth, no barrier, no rooflines: {why_not}"
        return found
    before = torch.get_num_threads()
    try:
        for count in sorted({1, threads}):
            torch.set_num_threads(count)
            found["by_threads"].append(_rates(library, count, dtypes))
    finally:
        torch.set_num_threads(before)
    return found


def _rates(library: Any, threads: int, dtypes: list[str]) -> dict[str, Any]:
    def read(size: int) -> float:
        return size / _best(lambda repeats: library.read_repeatedly(size, repeats, threads))

    return {
        "threads": threads,
        "gemm_flops": {dtype: gemm(DTYPES[dtype]) for dtype in dtypes},
        "read": [[size, read(size)] for size in SIZES],
        "barrier": _best(lambda repeats: library.meet_repeatedly(repeats, threads)) if threads > 1 else None,
    }


def gemm(dtype: torch.dtype, size: int = 1024) -> float:
    """Operations a second of a large square product, by the fastest library in this process."""
    a, b = (torch.randn(size, size).to(dtype) for _ in range(2))

    def seconds(product: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> float:
        def repeat(count: int) -> float:
            start = time.perf_counter()
            for _ in range(count):
                product(a, b)
            return time.perf_counter() - start

        return _best(repeat)

    return 2 * size**3 / min(map(seconds, _products(dtype)))


def _products(dtype: torch.dtype) -> list[Callable[[torch.Tensor, torch.Tensor], torch.Tensor]]:
    """The products of MKL, oneDNN and our engine; none of the three is fastest on every processor."""
    products: list[Callable] = [torch.mm]
    if hasattr(torch.ops.mkldnn, "_linear_pointwise") and dtype != torch.float64:
        products.append(lambda a, b: torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], ""))
    if not BACKENDS["cpu"].why_not_available() and dtype in (torch.float32, torch.float64):
        products.append(importlib.import_module("seqcells.kernels.cpu.linear").gemm)
    return products


def _best(seconds_of: Callable[[int], float], sample: float = 0.005, samples: int = 8) -> float:
    """The least time of one repetition: disturbances only add time."""
    count = 1
    while seconds_of(count) < sample and count < 2**24:
        count *= 2
    return min(seconds_of(count) / count for _ in range(samples))


def _library() -> tuple[Any, str | None]:
    """The C library, compiled for this machine, or the reason why there is none."""
    compiler = next(filter(None, map(shutil.which, (os.environ.get("CC", "cc"), "gcc", "clang"))), None)
    if compiler is None:
        return None, "no C compiler"
    source = Path(__file__).with_name("cpu.c")
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "cpu.so"
        command = [compiler, "-O3", "-march=native", "-shared", "-fPIC", "-pthread", str(source), "-o", str(target)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            return None, f"{compiler} failed: {done.stderr.strip().splitlines()[0]}"
        library = ctypes.CDLL(str(target))
    library.read_repeatedly.argtypes = [ctypes.c_size_t, ctypes.c_long, ctypes.c_int]
    library.meet_repeatedly.argtypes = [ctypes.c_long, ctypes.c_int]
    library.read_repeatedly.restype = library.meet_repeatedly.restype = ctypes.c_double
    return library, None
