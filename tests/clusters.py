"""The cluster plan on a CPU: the emulated machine of tests/emulated runs its kernels."""

import ctypes
import hashlib
import shutil
import subprocess
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from seqcells.kernels.cuda import division
from seqcells.kernels.triton.host import gemm
from seqcells.kernels.triton.plans import cluster

KERNELS = Path(__file__).parents[1] / "kernels"
ROOM = 1 << 16


@cache
def folder():
    """Where emulated kernels are built: the headers, with the tests' machine in place of the GPU's."""
    made = TemporaryDirectory(prefix="seqcells-clusters-")
    root = Path(made.name)
    shutil.copytree(KERNELS / "cuda", root / "cuda", ignore=shutil.ignore_patterns("*.py", "ptx.cuh", "__pycache__"))
    shutil.copy(Path(__file__).parent / "emulated" / "ptx.cuh", root / "cuda")
    (root / "cpu").mkdir()
    shutil.copy(KERNELS / "cpu" / "pass_description.h", root / "cpu")
    return made, root / "cuda"


@cache
def library(text):
    """An emulated kernel, compiled as a library."""
    _, at = folder()
    name = hashlib.sha256(text.encode()).hexdigest()[:16]
    source, made = at / f"{name}.cpp", at / f"{name}.so"
    source.write_text(f"{text}\nSEQCELLS_EMULATE(seqcells_cluster)\n")
    command = ["c++", "-std=c++17", "-O1", "-fPIC", "-shared", "-fno-gnu-unique", "-w", str(source), "-o", str(made)]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[:4000]
    return ctypes.CDLL(str(made))


class Emulator:
    """Launches kernels on the CPU, with threads in an order drawn by ``seed``, and with the wait named ``broken``
    disabled.

    Attributes:
        waits: the waits of the launches so far.
        launches: the kernels' sources, each with its launch parameters.
    """

    def __init__(self, seed=0, broken=""):
        self.seed, self.broken, self.waits, self.launches = seed, broken, set(), []

    def __call__(self, text, how, arguments):
        self.launches.append((text, how))
        said = ctypes.create_string_buffer(ROOM)
        sizes = how.blocks, how.directions, how.cluster, how.threads, how.shared_bytes, self.seed
        failed = library(text).emulate(ctypes.byref(arguments), *sizes, self.broken.encode(), said, ROOM)
        words = said.value.decode()
        if failed:
            raise RuntimeError(words)
        self.waits.update(words.splitlines())


@contextmanager
def emulated(seed=0, broken="", forced=None):
    """Inside, the CPU looks like a GPU with clusters. ``forced``: the blocks, rows and warps of every division."""
    emulator = Emulator(seed, broken)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cluster, "launch", emulator)
        patch.setattr(cluster, "stack_bytes", lambda text, device: 0)
        patch.setattr(cluster, "why_not_on", lambda device: None)
        patch.setattr(cluster, "device_of", lambda shape: division.Device(227 << 10, (132, 66, 31, 15, 7)))
        patch.setattr(cluster.precision, "mode", lambda dtype: "tf32" if dtype.itemsize == 4 else "ieee")
        patch.setattr(gemm, "IN_FLOAT64", True)  # a CPU has no product of half-precision numbers with a float32 sum
        if forced:
            patch.setattr(division, "_choices", lambda *_: [forced])
        for each in (cluster._division, cluster._kernel):
            each.cache_clear()
        yield emulator
    for each in (cluster._division, cluster._kernel):
        each.cache_clear()
