"""Every shipped kernel compiles for every target without spilling, within its shared memory, and once for all sizes.

No GPU is needed. The work runs in other processes, because kernels that this process interprets cannot be compiled.
"""

import itertools
import json
import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")

SOME = ("--cells", "lstm", "gru", "peephole_lstm")
# The plans that `auto` may choose; the persistent plan has a test of its own.
UNASKED = ("--backends", "triton", "triton-stepwise")
OTHERS = ("3.6.0", "3.9.0")  # the oldest version that is supported, and the newest


def some_heavy(cases, *chosen):
    """Mark the chosen cases heavy. All other cases are exhaustive: they take hours, for changes of the bounds."""
    return [pytest.param(case, marks=pytest.mark.heavy if case in chosen else pytest.mark.exhaustive) for case in cases]


def rows(tmp_path, *arguments, instructions=False, **environment):
    """The rows of ``python -m benchmarks.resources``; with ``instructions``, also counts in the machine code, which
    takes longer."""
    arguments = arguments if instructions else ("--no-instructions", *arguments)
    environment = {**os.environ, **environment}
    environment.pop("TRITON_INTERPRET", None)
    path = tmp_path / "resources.json"
    command = [sys.executable, "-m", "benchmarks.resources", "--jobs", "1", "--json", str(path)]
    done = subprocess.run([*command, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert path.exists(), done.stderr[-5000:]
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def compiling():
    """A process that compiles kernels, even if this process interprets them."""
    with pytest.MonkeyPatch.context() as patch, ProcessPoolExecutor(1, get_context("spawn")) as pool:
        patch.delenv("TRITON_INTERPRET", raising=False)
        pool.submit(int).result()
        yield pool


def assert_fits(found):
    """Nothing spills, and every block gets the shared memory that it needs."""
    assert found["rows"]
    for row in found["rows"]:
        assert row["error"] is None, row
        assert row["registers"] > 0 and row["stack"] == 0, row
        assert row["shared"] <= row["limit"], row


def test_the_commonest_kernels_fit(tmp_path):
    given = ("--cells", "lstm", "gru", "--dtypes", "bfloat16", "float32", "--hidden", "512")
    found = rows(tmp_path, *given, "--options", "plain", "boundaries+projection")
    assert_fits(found)
    of_lstm = {row["kernel"] for row in found["rows"] if row["cell"] == "lstm"}
    assert {"gates.forward", "gates.backward"} <= of_lstm


PERSISTENT = ("--backends", "triton-persistent", "--cells", "lstm", "gru")
ALL_BATCHES = ("plain", "boundaries", "boundaries+batched", "boundaries+many")


def test_the_persistent_plan_fits(tmp_path):
    """One program that holds all units, and several programs; with more sequences than a tile has rows."""
    given = ("--dtypes", "bfloat16", "--hidden", "64", "650", "--options", "boundaries+batched")
    found = rows(tmp_path, *PERSISTENT, *given)
    assert_fits(found)
    assert {row["tile"]["ALONE"] for row in found["rows"] if row["kernel"].startswith("sequence")} == {True, False}


def test_stacks_fit(tmp_path):
    """Two layers in one launch, for inference, training and backward."""
    given = ("--cells", "lstm", "--dtypes", "bfloat16", "--hidden", "512", "--options", "boundaries+two-layers")
    found = rows(tmp_path, *PERSISTENT[:2], *given)
    assert_fits(found)
    assert {row["during"] for row in found["rows"]} == {"inference", "forward", "backward"}
    assert all(row["tile"]["BETWEEN"] for row in found["rows"])


STACKS = list(itertools.product(("sm_80", "sm_90", "sm_100"), ("128", "256", "384", "512", "650")))


@pytest.mark.parametrize("case", some_heavy(STACKS, ("sm_90", "512")), ids="-".join)
def test_stacks_fit_at_any_size(case, tmp_path):
    """float16 needs the same resources as bfloat16. Stacks of more layers that do not fit have no kernels."""
    target, hidden = case
    given = ("--targets", target, "--dtypes", "bfloat16", "float32", "--hidden", hidden)
    ways = [f"boundaries+two-layers{batch}" for batch in ("", "+batched", "+many")]
    assert_fits(rows(tmp_path, *PERSISTENT, *given, "--options", *ways, "boundaries+four-layers"))


SIZES = ("32", "64", "128", "256", "512", "650", "1024", "1500")


@pytest.mark.parametrize("hidden", some_heavy(SIZES, "1500"))
def test_the_persistent_plan_fits_at_any_size(hidden, tmp_path):
    """The plan refuses some calls, but at no size here all calls. float16 needs the same resources as bfloat16."""
    given = ("--dtypes", "bfloat16", "float32", "--hidden", hidden)
    ways = [*ALL_BATCHES, *(f"bidirectional+{each}" for each in ALL_BATCHES[1:]), "ieee+boundaries", "recompute"]
    ways += ["flags", "flags+boundaries+batched"]
    assert_fits(rows(tmp_path, *PERSISTENT, *given, "--options", *ways))


OTHER_TARGETS = list(itertools.product(("sm_80", "sm_100"), ("128", "256", "512", "1024", "1500")))


@pytest.mark.parametrize("case", some_heavy(OTHER_TARGETS, ("sm_80", "512")), ids="-".join)
def test_the_persistent_plan_fits_other_targets(case, tmp_path):
    target, hidden = case
    given = ("--targets", target, "--dtypes", "bfloat16", "float32", "--hidden", hidden)
    ways = ("boundaries", "boundaries+batched", "bidirectional+boundaries", "flags", "flags+boundaries+batched")
    assert_fits(rows(tmp_path, *PERSISTENT, *given, "--options", *ways))


def assert_loads_no_weights(found):
    """In its time loop, a program loads exactly the bytes that a step needs: the weights were loaded before."""
    from seqcells.cells import REGISTRY
    from seqcells.kernels.triton.device.cells import CELLS

    kernels = [row for row in found["rows"] if row["kernel"].startswith("sequence")]
    assert kernels
    for row in kernels:
        tile, size = row["tile"], {"bfloat16": 2, "float16": 2, "float32": 4}[row["dtype"]]
        chunks = tile["CHUNKS"] if isinstance(tile["CHUNKS"], list) else [tile["CHUNKS"]]
        exchanged = 0 if tile["ALONE"] else tile["BLOCK_B"] * sum(chunks) * size
        derived = CELLS[row["cell"]]
        if row["kernel"] == "sequence.forward":
            tensors = len(REGISTRY[row["cell"]].gates), 0
        else:
            # Saved values, the output's gradient, and states around the step. Before the first step, states are
            # elsewhere.
            previous, elsewhere = sum(derived.previous), sum(derived.previous[1:])
            tensors = len(derived.saved) + 1 + previous + sum(derived.next), elsewhere
        # If a tile has fewer elements than there are threads, some threads load in vain.
        each = max(tile["BLOCK_B"] * tile["BLOCK_H"], 32 * row["warps"]) * size
        least = exchanged + tensors[0] * each
        assert least <= row["loop_bytes"] <= least + tensors[1] * each, row
        if tile["SHARED"]:
            held = len(REGISTRY[row["cell"]].recurrent_gates) * tile["BLOCK_H"] * tile["WIDTH"] * size
            assert row["shared"] > held, row


def test_weights_are_loaded_before_the_loop(tmp_path):
    given = ("--dtypes", "bfloat16", "--hidden", "128", "1500", "--options", "plain")
    found = rows(tmp_path, *PERSISTENT[:3], "lstm", *given, instructions=True)
    assert_loads_no_weights(found)
    assert {row["tile"]["SHARED"] for row in found["rows"]} == {True, False}


LOADED = list(itertools.product(("sm_80", "sm_90"), ("128", "256", "512", "1024", "1500")))


@pytest.mark.parametrize("case", some_heavy(LOADED, ("sm_90", "512")), ids="-".join)
def test_weights_are_loaded_before_the_loop_at_any_size(case, tmp_path):
    target, hidden = case
    given = ("--dtypes", "bfloat16", "float16", "float32", "--hidden", hidden, "--options", "plain", "bidirectional")
    assert_loads_no_weights(rows(tmp_path, *PERSISTENT, *given, "--targets", target, instructions=True))


def starved(target):
    """A shipped kernel, and the same kernel with fewer registers than it needs."""
    from benchmarks.resources.binaries import compiled
    from benchmarks.resources.cases import Case
    from benchmarks.resources.launches import TARGETS

    _, launched = Case("triton-stepwise", "lstm", "float32", 512, "boundaries").launches(TARGETS[target])[0]
    fewer = launched._replace(options={**launched.options, "maxnreg": 32})
    return [compiled(each, TARGETS[target]) for each in (launched, fewer)]


@pytest.mark.parametrize("target", ("sm_80", "sm_90"))
def test_a_spill_would_be_seen(target, compiling):
    usual, fewer = compiling.submit(starved, target).result()
    assert usual.registers > 32 and usual.stack == 0
    assert fewer.registers == 32 and fewer.stack > 0
    assert usual.instructions["spill_loads"] == 0 < fewer.instructions["spill_loads"]


def counted(target):
    """The instructions of the kernel with the fewest tensors: x, product and bias in, states in and out, output out."""
    from benchmarks.resources.binaries import compiled
    from benchmarks.resources.cases import Case
    from benchmarks.resources.launches import TARGETS

    _, launched = Case("triton-stepwise", "rnn_relu", "float32", 512).launches(TARGETS[target])[0]
    return compiled(launched, TARGETS[target]).instructions


@pytest.mark.parametrize("target", ("sm_90", "gfx942"))
def test_instructions_are_told_apart(target, compiling):
    found = compiling.submit(counted, target).result()
    assert found["global_loads"] >= 4 and found["global_stores"] >= 2
    assert sum(found.values()) < 2 * found["all"]
    assert not any(found[kind] for kind in ("matrix", "atomics", "spill_loads", "spill_stores", "barriers"))


EVERY = (
    ("sm_90", "--dtypes", "bfloat16", "float16"),
    ("sm_90", "--dtypes", "float32", "float64"),
    *((target, "--dtypes", "bfloat16", "float32", "float64", *SOME) for target in ("gfx942", "sm_80", "sm_100")),
)


@pytest.mark.parametrize(
    "arguments", some_heavy(EVERY, EVERY[0], EVERY[2]), ids=lambda arguments: f"{arguments[0]}-{arguments[2]}"
)
def test_every_kernel_fits(arguments, tmp_path):
    """All cells on one target and some cells on each; at a size that 16 divides and at a size that only odd numbers
    divide."""
    assert_fits(rows(tmp_path, *UNASKED, "--hidden", "512", "651", "--targets", *arguments))


@pytest.mark.heavy
@pytest.mark.parametrize("other", OTHERS)
def test_another_triton_too(other, tmp_path):
    if version("triton") == other:
        pytest.skip("it is the one that the other tests are run with")
    folder = tmp_path / "other"
    # pip is run directly: looking for pip makes setuptools fail in this process, and torch.compile with it.
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
    done = subprocess.run([*command, f"triton=={other}"], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"triton {other} cannot be fetched: {done.stderr.strip()[-300:]}")
    dtypes = ("--dtypes", "bfloat16", "float32", "--hidden")
    meeting = ("1024", "--options", "boundaries+batched")
    for given in (
        (*UNASKED, "--targets", "sm_90", *SOME, *dtypes, "512"),
        (*PERSISTENT, "--targets", "sm_90", *dtypes, *meeting),
    ):
        found = rows(tmp_path, *given, PYTHONPATH=str(folder))
        assert found["triton"] == other
        assert_fits(found)


# How often kernels are compiled.


def compilations(target, case, shapes):
    """For each shape (steps, batch): what the engine's launches would have compiled."""
    from benchmarks.resources.cases import Case
    from benchmarks.resources.launches import TARGETS

    launches = [Case(*case).launches(TARGETS[target], *shape) for shape in shapes]
    return [{(during, launched.name, launched.key) for during, launched in each} for each in launches]


def ambiguous(target, case, shapes):
    """The keys that `Launch` takes for equal where Triton would compile several kernels."""
    from seqcells.kernels.triton.host import launch

    own, of_launch = [], launch.Launch._key

    def noted(self):
        own.append(of_launch(self))
        return own[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch.Launch, "_key", noted)
        patch.setattr("torch.version.hip", "there" if target.startswith("gfx") else None)
        found = compiled_keys(target, case, shapes)
    assert len(own) == len(found) > 0
    by_own = {}
    for mine, theirs in zip(own, found, strict=True):
        by_own.setdefault(mine, set()).add(theirs)
    return [list(keys) for keys in by_own.values() if len(keys) > 1]


def compiled_keys(target, case, shapes):
    """For each launch: its kernel, and the key that Triton compiles the kernel for."""
    from benchmarks.resources.cases import Case
    from benchmarks.resources.launches import TARGETS

    launches = [each for shape in shapes for each in Case(*case).launches(TARGETS[target], *shape)]
    return [(launched.name, launched.key) for _, launched in launches]


SHAPES = ((3, 16), (1, 1), (1, 16), (2, 1), (7, 3), (16, 32), (17, 33), (5, 1000))


NAMES = ("lstm", "gru", "mingru")
PLAIN = ("plain", "boundaries", "boundaries+recompute")
CALLS = [(name, variant, hidden) for name in NAMES for variant in PLAIN for hidden in (1, 100, 512)]
# If 16 does not divide one direction's part of the input, the other part may begin off a multiple of 16 bytes.
CALLS += [(name, "bidirectional", hidden) for name in NAMES for hidden in (96, 512)]
CALLS += [("lstm", "boundaries+projection", hidden) for hidden in (100, 512)]


@pytest.mark.parametrize(("name", "variant", "hidden"), CALLS)
def test_no_size_compiles_anew(name, variant, hidden, compiling):
    """Neither T nor B compiles anew: not 1, which Triton would compile in by default, and not multiples of 16."""
    case = ("triton-stepwise", name, "bfloat16", hidden, variant)
    first, *rest = compiling.submit(compilations, "sm_90", case, SHAPES).result()
    assert {during for during, _, _ in first} == {"inference", "forward", "backward"}
    for shape, found in zip(SHAPES[1:], rest, strict=True):
        assert found == first, (shape, found ^ first)


@pytest.mark.parametrize("variant", ("plain", "bidirectional+boundaries"))
@pytest.mark.parametrize(
    ("target", "backend", "large"),
    (
        ("sm_90", "triton-stepwise", 1 << 20),
        ("sm_90", "triton-persistent", 100),
        ("gfx942", "triton-stepwise", 1 << 20),
    ),
)
def test_a_launch_finds_no_kernel_but_its_own(target, backend, large, variant, compiling):
    """`Launch` looks at fewer properties of its arguments than Triton, among all kernels compiled for some layers."""
    for name, dtype, hidden in (("lstm", "bfloat16", 512), ("gru", "float32", 100)):
        case = (backend, name, dtype, hidden, variant)
        assert compiling.submit(ambiguous, target, case, ((3, 16), (1, 1), (2, large))).result() == []


@pytest.mark.parametrize(("target", "anew"), (("sm_90", False), ("gfx942", True)))
def test_past_two_gigabytes(target, anew, compiling):
    """Beyond 31-bit addresses, NVIDIA's kernels stay the same. AMD's kernels change, because they use 32-bit offsets
    below."""
    case = ("triton-stepwise", "lstm", "bfloat16", 512, "plain")
    small, large = compiling.submit(compilations, target, case, ((2, 16), (2, 1 << 20))).result()
    assert (small != large) == anew and len(small) == len(large)
