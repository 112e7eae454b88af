"""The elementwise code without an engine: printed cells and activations in Triton's interpreter, activations by g++."""

import ctypes
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ to compile the activations with")


def interpreted(requests: list[tuple], cells: str | None = None) -> list[dict[str, torch.Tensor]]:
    """The results of kernels.py, in a child process, because TRITON_INTERPRET is read when triton is imported.

    ``cells`` is the printed text of cells that the registry lacks.
    """
    with tempfile.TemporaryDirectory() as folder:
        given, results, others = Path(folder, "in.pt"), Path(folder, "out.pt"), Path(folder, "others.py")
        torch.save(requests, given)
        environment = {**os.environ, "TRITON_INTERPRET": "1"}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        command = [sys.executable, str(HERE / "kernels.py"), str(given), str(results)]
        if cells is not None:
            others.write_text(cells)
            command.append(str(others))
        subprocess.run(command, check=True, env=environment)
        return torch.load(results)


@functools.cache
def library() -> ctypes.CDLL:
    """kernels.cpp, compiled without flags for this machine; warnings are errors."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "kernels.so")
        flags = ["-std=c++17", "-O1", "-Wall", "-Werror", "-shared", "-fPIC", f"-I{ROOT}/kernels/cpu"]
        subprocess.run(["g++", *flags, str(HERE / "kernels.cpp"), "-o", str(target)], check=True)
        return ctypes.CDLL(str(target))


def compiled_activation(name: str, x: torch.Tensor) -> torch.Tensor:
    """An activation of kernels.cpp."""
    y = torch.full_like(x, torch.nan)
    kind = {torch.float32: "float", torch.float64: "double"}[x.dtype]
    arguments = ctypes.c_int64(x.numel()), ctypes.c_void_p(x.data_ptr()), ctypes.c_void_p(y.data_ptr())
    getattr(library(), f"{name}_{kind}")(*arguments)
    return y
