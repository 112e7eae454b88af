"""The CPU kernels read and write only their own memory, have no data races, and no undefined behaviour.

The compiler's sanitizers check this. A team with weakened memory orders shows that they would find a race.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from equations import every
from support import heavy_if

from seqcells import cells
from seqcells.derive.print_loop import cpp_cells
from seqcells.derive.transformed_cells import transformed
from seqcells.kernels import cpu

SOURCES = Path(__file__).parent / "sanitize"
ROOT = SOURCES.parents[1]
KERNELS = ROOT / "kernels" / "cpu"
FUZZERS = ROOT / "tests" / "fuzz"
COMPILER = shutil.which("g++")
pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(COMPILER is None, reason="no g++ on this machine"),
]
# The engine's threads sleep to the end of the process, which is no leak.
ENVIRONMENT = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0", "TSAN_OPTIONS": "halt_on_error=1"}


QUICK = ("-DSEQCELLS_WHOLE_VECTORS=false",)
"""Compiles in a third of the time, because vectors then use the code for a row's end only."""
WIDE = "-DSEQCELLS_VECTOR_BYTES=64", "-DSEQCELLS_VECTOR_REGISTERS=32"
HEADS = cells.BlockGRU.configured(heads=3)
"""Heads with an odd number of units, for an odd number of units in all."""
GROUPS = {
    "torch": ((cells.LSTM, cells.GRU), ()),
    "elementwise": ((cells.RNNTanh, cells.PeepholeLSTM, cells.IndRNN, cells.SLSTM), QUICK),
    "projected": ((transformed(cells.LSTM, "projection(1)"), transformed(cells.Jordan, "projection(1)")), QUICK),
    "gathering": ((cells.GRUResetBefore, cells.LayerNormLSTM), QUICK),
    "sizes": ((every()["scrn"],), QUICK),
    "heads": ((HEADS,), QUICK),
}
"""Cells that one program drives, and how it is compiled. There are cells of each kind: the product's gradient is the
gates' own, or its own, or there is no product. Further kinds have several products, reductions, units of several sizes,
heads, or an output that is no state."""
THREADS_MEET = cells.LSTM, cells.GRU, cells.IndRNN, cells.LayerNormLSTM
"""Their threads meet between steps, between stages, for sums, or nowhere."""


def drive(folder, sanitizers, driven, *options):
    """Compile the driver of some cells with the sanitizers, and run it."""
    program = folder / "driver"
    (folder / "driven.h").write_text(f'#include "cell_library.h"\n{cpp_cells(driven)}')
    # These checks would triple the compile time. Except for a use after scope, the address sanitizer finds the same
    # errors.
    dropped = ["-fno-sanitize=null,object-size,vptr", "-fno-sanitize-address-use-after-scope"]
    watched = [f"-fsanitize={sanitizers}", "-fno-sanitize-recover=all", *dropped, "-Wl,--wrap=aligned_alloc"]
    command = [COMPILER, "-std=c++17", "-O1", "-g1", "-pthread", "-w", *watched]
    sources = [SOURCES / "driver.cpp", *(KERNELS / f"{name}.cpp" for name in ("openmp", "memory_pool", "team"))]
    command += [f"-I{KERNELS}", f"-I{folder}", *options, *sources]
    subprocess.run([*command, "-ldl", "-o", program], check=True)
    done = subprocess.run([program], env=ENVIRONMENT, capture_output=True, text=True)
    if "unexpected memory mapping" in done.stderr:
        # The kernel randomizes addresses over a wider range than this compiler's thread sanitizer supports.
        done = subprocess.run(["setarch", "-R", program], env=ENVIRONMENT, capture_output=True, text=True)
        if "failed to set personality" in done.stderr:
            pytest.skip("the thread sanitizer wants addresses in order (setarch -R), which is forbidden here")
    return done


def assert_nothing_found(done):
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    assert done.stdout.endswith("0 failures\n")


@heavy_if(lambda group: group == "torch")
@pytest.mark.parametrize("group", GROUPS)
def test_nothing_is_found(group, tmp_path):
    driven, options = GROUPS[group]
    assert_nothing_found(drive(tmp_path, "address,undefined", driven, *options))


def test_no_race_is_found(tmp_path):
    assert_nothing_found(drive(tmp_path, "thread", THREADS_MEET, *QUICK))


def test_heads_in_wide_vectors(tmp_path):
    """The code handles pairs of bfloat16; the last pair has only one number where a vector's heads have an odd number
    of units."""
    assert_nothing_found(drive(tmp_path, "address,undefined", [HEADS], *WIDE, *QUICK))


@pytest.mark.parametrize("columns", (16, pytest.param(15, marks=pytest.mark.exhaustive)))
def test_tiles_by_a_unit_in_plain_cpp(columns, tmp_path):
    """Few machines have AMX. The same calls use functions in place of its instructions; one variant leaves a column
    out, and must fail."""
    unit = f"-DSEQCELLS_TILES_EMULATED={columns}"
    done = drive(tmp_path, "address,undefined", [cells.LSTM], unit, *WIDE, *QUICK)
    assert (done.returncode == 0) == (done.stdout == "0 failures\n") == (columns == 16), done.stderr[-6000:]


# The memory orders at the end of a phase: of its signal, and of the read of the signal. A release alone, or one with an
# acquire, guards no phase.
@pytest.mark.parametrize("order", ("acquire", "seq_cst"))
def test_a_team_without_one_of_its_memory_orders_is_found(order, tmp_path):
    weakened = tmp_path / "weakened.h"
    weakened.write_text(f"#include <bits/stdc++.h>\n#define memory_order_{order} memory_order_relaxed\n")
    done = drive(tmp_path, "thread", [cells.LSTM], "-include", weakened, "-DDRIVE_CALLERS_ALONE", *QUICK)
    assert done.returncode != 0 and "ThreadSanitizer: data race" in done.stderr, done.stderr[-6000:]


# From Python: the engine as an extension, under its fuzzers.


def library_path(name):
    return subprocess.check_output([COMPILER, f"-print-file-name={name}"], text=True).strip()


@pytest.fixture(scope="module")
def extension(tmp_path_factory):
    """The engine with the kernels of one instruction set, under sanitizers: pytest's arguments that use it in place of
    the package's."""
    if cpu.why_not_available():
        pytest.skip(cpu.why_not_available())
    from seqcells.kernels.cpu.library import TARGETS

    # The best instruction set whose tables do not extend another set's.
    target = next(
        name for name in TARGETS if "SEQCELLS_PAIRS" not in (KERNELS / f"target_kernels_{name}.cpp").read_text()
    )
    path = tmp_path_factory.mktemp("engine") / "_engine.so"
    # Not optimised, because optimising instrumented code takes many minutes.
    options = ["-std=c++17", "-O0", "-g1", *QUICK, "-shared", "-fPIC", "-pthread", "-w", "-fvisibility=hidden"]
    watched = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-sanitize-address-use-after-scope"]
    parts = "module", "memory_pool", "team", "openmp", f"target_kernels_{target}", f"built_in_cells_{target}"
    command = [COMPILER, *options, *watched, f"-I{KERNELS}", f"-I{sysconfig.get_path('include')}"]
    command += [*(KERNELS / f"{name}.cpp" for name in parts), SOURCES / "absent.cpp"]
    subprocess.run([*command, "-ldl", "-o", path], check=True)
    return ["-p", "engine_in_place", "--engine", path, "--target", target]


def watched_pytest(*arguments):
    """pytest in a process of its own, whose allocations the sanitizer makes."""
    # The sanitizer looks for C++'s exceptions before the first library with them is loaded, so libstdc++ is preloaded.
    first = " ".join(map(library_path, ("libasan.so", "libstdc++.so.6")))
    environment = {**ENVIRONMENT, "LD_PRELOAD": first, "PYTHONPATH": str(SOURCES), "PYTHONMALLOC": "malloc"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-s", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)


def test_fuzzers_find_nothing_from_python(extension):
    done = watched_pytest(*extension, FUZZERS, "-k", "not many and not triton")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-6000:]


FAULT = """
import torch
from seqcells.kernels.cpu import library

def test_a_row_too_many():
    a, b, c = torch.ones(4, 8), torch.ones(8, 4), torch.empty(4, 4)
    fields = 5, 4, 8, 1, a.data_ptr(), 8, 1, b.data_ptr(), 4, 1, 0, c.data_ptr()
    library._engine.gemm(library.precision_handle("float32"), *fields)
"""


def test_what_is_outside_of_a_tensor_is_found(extension, tmp_path):
    (tmp_path / "test_fault.py").write_text(FAULT)
    done = watched_pytest(*extension, tmp_path)
    assert done.returncode != 0 and "heap-buffer-overflow" in done.stderr, done.stderr[-6000:]
