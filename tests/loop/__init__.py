"""Printed cells run by the loop of kernels/cpu: compiled alone, and called with tensors."""

import ctypes
import functools
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
import torch
from torch import Tensor

from seqcells.boundaries import boundaries, valid_steps
from seqcells.derive.derivation import derive
from seqcells.derive.layout import Layout, layouts
from seqcells.derive.print_loop import cpp_struct
from seqcells.recurrence import Recurrence

HERE = Path(__file__).parent
KERNELS = HERE.parents[1] / "kernels" / "cpu"
MAX_ARRAYS = 40
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ to compile the printed C++ with")
TARGETS = {"portable": ["-DSEQCELLS_VECTOR_BYTES=16", "-DSEQCELLS_VECTOR_REGISTERS=16"]}
if platform.machine() == "x86_64":
    TARGETS["avx2"] = ["-DSEQCELLS_VECTOR_BYTES=32", "-DSEQCELLS_VECTOR_REGISTERS=16", "-mavx2", "-mfma"]


class Loop:
    """A cell's two passes for one instruction set; in float32 too where that is asked for."""

    def __init__(self, cell: type, target: str, single: bool) -> None:
        self.cell = cell
        self.layouts: tuple[Layout, Layout] = layouts(cell, derive(cell, reset=True, lengths=True))
        self._library = _compiled(cell, target, single)
        self._library.name_of.restype = ctypes.c_char_p

    def _names(self, which: int) -> list[str]:
        names = (self._library.name_of(which, k) for k in range(MAX_ARRAYS))
        return [name.decode() for name in names if name]

    def _run(self, which: int, q: Recurrence, threads: int, arrays: dict[str, Tensor]) -> None:
        (steps, batch, _), hidden = q.gates_x.shape, q.hidden
        names, address = self._names(which), lambda tensor: 0 if tensor is None else tensor.data_ptr()
        rest = [0] * (MAX_ARRAYS - len(names))
        fields = [steps, batch, hidden, int(q.reverse), threads, 0, 0, 0, 0, 0, address(q.lengths), address(q.reset), 0]
        fields += [address(arrays.get(name)) for name in names] + rest
        widths = {name: tensor.shape[-1] for name, tensor in arrays.items() if tensor is not None and tensor.dim() == 3}
        fields += [widths.get(name, 0) for name in names] + rest
        run = {torch.float64: "run_double", torch.float32: "run_float"}[q.gates_x.dtype]
        assert getattr(self._library, run)(which, (ctypes.c_int64 * len(fields))(*fields)) == 0

    def _columns(self, which: int, array: str) -> int:
        slots = [each.slot for results in self.layouts[which].results for each in results]
        return 1 + max((slot.column for slot in slots if slot.array == array), default=-1)

    def forward(self, q: Recurrence, threads: int = 1) -> dict[str, Tensor]:
        """All arrays of the pass by name, of a recurrence in one direction."""
        (steps, batch, _), hidden, w = q.gates_x.shape, q.hidden, q.weights[0]

        def empty(*shape: int) -> Tensor:
            return torch.full(shape, torch.nan, dtype=q.gates_x.dtype)

        arrays = {"gates_x": q.gates_x, "output": empty(steps, batch, hidden)}
        for state, initial in zip(self.cell.states, q.states, strict=True):
            arrays |= {f"initial.{state}": initial[0], f"final.{state}": empty(batch, hidden)}
            arrays[f"after.{state}"] = empty(steps, batch, hidden)
        for state, fresh in zip(self.cell.states, q.reset_states or (), strict=False):
            arrays[f"fresh.{state}"] = fresh[0]
        arrays |= {"weight_hh": w.hh, "bias_hh": w.bias_hh, **w.named(self.cell)}
        arrays["saved"] = empty(steps, batch, self._columns(0, "saved") * hidden)
        arrays["numbers"] = empty(steps, batch, self._columns(0, "numbers"))
        self._run(0, q, threads, arrays)
        return arrays

    def backward(
        self, q: Recurrence, arrays: dict[str, Tensor], grad_output: Tensor, grad_final: list[Tensor], threads: int = 1
    ) -> dict[str, Tensor]:
        """The gradients by the names of what they are of."""
        (steps, batch, width), hidden, w = q.gates_x.shape, q.hidden, q.weights[0]

        def empty(*shape: int) -> Tensor:
            return torch.full(shape, torch.nan, dtype=q.gates_x.dtype)

        own = {"weight_hh": w.hh, "bias_hh": w.bias_hh, **w.named(self.cell)}
        own = {name: tensor for name, tensor in own.items() if tensor is not None}
        grads = {f"grad_{name}": torch.full_like(tensor, torch.nan) for name, tensor in own.items()}
        grads |= {"grad_gates_x": empty(steps, batch, width), "grad_bias_ih": empty(width)}
        for state, grad in zip(self.cell.states, grad_final, strict=True):
            grads |= {f"grad_final.{state}": grad[0], f"grad_initial.{state}": empty(batch, hidden)}
            grads[f"grad_fresh.{state}"] = torch.zeros(batch, hidden, dtype=q.gates_x.dtype)
        for name in ("grad_products", "multiplied"):
            grads[name] = empty(steps, batch, self._columns(1, name) * hidden)
        given = {**arrays, "previous": _previous(q, arrays["output"]), "grad_output": grad_output, **grads}
        self._run(1, q, threads, given)
        found = {name.removeprefix("grad_"): grad for name, grad in grads.items()}
        for name in {term.weight for term in self.layouts[1].terms}:
            found[name] = torch.zeros_like(own[name])
        for term in self.layouts[1].terms:
            d, operand = (given[array][..., k * hidden : (k + 1) * hidden] for array, k in (term.d, term.operand))
            whole, size = d.flatten(0, 1).T @ operand.flatten(0, 1), hidden // term.heads
            for head in range(term.heads):
                units = slice(head * size, (head + 1) * size)
                of_head = slice(term.block * hidden + units.start, term.block * hidden + units.stop)
                found[term.weight][of_head] += whole[units, units]
        return found


def _previous(q: Recurrence, output: Tensor) -> Tensor:
    """The hidden state that each step's product read."""
    steps, before, state = len(output), [output] * len(output), q.states[0][0]
    valid = None if q.lengths is None else valid_steps(q.lengths, steps).unsqueeze(-1)
    boundary = None if q.reset is None else boundaries(q.reset, valid if valid is None else valid[..., 0], q.reverse)
    fresh = torch.zeros_like(state) if q.reset_states is None else q.reset_states[0][0]
    for t in reversed(range(steps)) if q.reverse else range(steps):
        before[t] = state if boundary is None else torch.where(boundary[t].unsqueeze(-1), fresh, state)
        state = output[t] if valid is None else torch.where(valid[t], output[t], before[t])
    return torch.stack(before)


@functools.cache
def _compiled(cell: type, target: str, single: bool) -> ctypes.CDLL:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "cell_text.h").write_text(cpp_struct(cell))
        flags = [
            "-std=c++17",
            "-O1",
            "-fno-math-errno",
            "-pthread",
            "-Wall",
            "-Werror",
            "-Wno-psabi",
            "-shared",
            "-fPIC",
        ]
        flags += [f"-DSEQCELLS_TARGET={target}", f"-DSEQCELLS_CELL={cell.__name__}", *TARGETS[target]]
        flags += ["-DSEQCELLS_FLOAT"] * single + [f"-I{folder}", f"-I{KERNELS}"]
        sources = [HERE / "harness.cpp", *(KERNELS / f"{name}.cpp" for name in ("team", "pool", "openmp"))]
        library = Path(folder, "loop.so")
        subprocess.run(["g++", *flags, *map(str, sources), "-o", str(library)], check=True)
        return ctypes.CDLL(str(library))
