"""The cluster plan: an emulated machine runs its kernels on a CPU, and NVRTC compiles them for GPUs that are not
present.

The emulated machine draws the next thread and the arrival of asynchronous stores. So the results test the cluster's
protocol: which block may overwrite which memory, and when. The results must be the reference's numbers, with the same
bits for any order. Without any one wait, the numbers differ or the kernel stands still.
"""

import shutil
import sys

import pytest
import torch

pytest.importorskip("triton")

from clusters import emulated
from recurrences import random_recurrence, results
from support import assert_equal_to, distance, gradients, plain_if

import seqcells
from seqcells import cells
from seqcells.backends import BACKENDS
from seqcells.call import run
from seqcells.cells import Cell, units
from seqcells.cells.activations import tanh
from seqcells.kernels.cuda import division, driver, nvrtc, source
from seqcells.kernels.cuda.division import Device, Wanted
from seqcells.kernels.cuda.kernel_cache import EMPTY
from seqcells.kernels.cuda.source import Given, How
from seqcells.kernels.triton.plans import cluster
from seqcells.kernels.triton.plans.shape import Shape

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="the emulated machine's fibers are glibc's"),
    pytest.mark.skipif(not shutil.which("c++"), reason="there is no C++ compiler"),
]
EVERY = {
    value.name: value
    for value in (getattr(cells, name) for name in dir(cells))
    if isinstance(value, type) and issubclass(value, Cell) and value is not Cell
}
FORMS = {
    "plain": {},
    "lengths": {"lengths": True},
    "both backwards": {"lengths": True, "resets": True, "reverse": True},
    "both, two directions": {"lengths": True, "resets": True, "directions": 2},
}
BACKEND = "cuda-cluster"
H200 = Device(227 << 10, (132, 66, 31, 15, 7))
SMALL = 2, 8, 4
"""Blocks, rows and warps of a cluster that a CPU runs in seconds."""


@pytest.fixture(autouse=True)
def there(monkeypatch):
    """Pretend that torch has found a GPU."""
    monkeypatch.setitem(BACKENDS, BACKEND, BACKENDS[BACKEND]._replace(why_not_available=lambda: None))


def found(q, seed=0, broken="", forced=SMALL):
    with emulated(seed, broken, forced):
        return results(q, BACKEND)


def exact(q):
    """The reference's results for the same numbers in float64."""
    wide = [each.detach().double().requires_grad_() for each in q.differentiable()]
    return [each.to(q.outside.dtype) for each in results(q.replaced(wide), "reference")]


def skip_without_kernels(name):
    if source.why_not(EVERY[name]):
        pytest.skip(source.why_not(EVERY[name]))


@plain_if(lambda name, form: form == "both, two directions")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["lstm", "gru", "layer_norm_lstm"])
def test_results_and_every_gradient(name, form):
    q = random_recurrence(EVERY[name], torch.float32, hidden=24, steps=5, **FORMS[form])
    assert_equal_to(found(q), exact(q), 1e-6)


@pytest.mark.heavy
@pytest.mark.parametrize("name", EVERY)
def test_every_cell(name):
    skip_without_kernels(name)
    cell, features = EVERY[name], 24 if "input" in EVERY[name].streams else 0
    q = random_recurrence(cell, torch.float32, hidden=24, steps=4, features=features, **FORMS["both, two directions"])
    assert_equal_to(found(q), exact(q), 4e-6)


@plain_if(lambda name, dtype: name == "lstm" and dtype == torch.bfloat16)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["lstm", "gru", "gru_reset_before"])
def test_halves(name, dtype):
    """Products' operands and kept values are rounded once: results are within three roundings of the float64 result."""
    q = random_recurrence(EVERY[name], dtype, hidden=33, steps=5, **FORMS["both, two directions"])
    rounding = torch.finfo(dtype).eps
    for ours, truth in zip(found(q, forced=(4, 8, 4)), exact(q), strict=True):
        assert distance(ours, truth) < 1.5 * rounding


@plain_if(lambda hidden, batch, steps: hidden == 20)
@pytest.mark.parametrize("hidden, batch, steps", [(1, 2, 3), (7, 9, 1), (20, 17, 4)])
def test_sizes_that_fill_no_tile(hidden, batch, steps):
    """Clusters of two blocks, in sequence where there are more rows than one cluster has."""
    q = random_recurrence(EVERY["lstm"], torch.float32, hidden=hidden, batch=batch, steps=steps)
    assert_equal_to(found(q), exact(q), 1e-6)


def test_every_reduction(own_registry):
    """Also with values that depend on each reduction."""

    class Reduced(Cell):
        name, gates, states = "reduced_of_the_tests", ("a",), ("h",)

        @staticmethod
        def step(x, r, s, p):
            v = x.a + r.a
            scale = units.max(v) + units.logsumexp(v) + units.sum(v) * 0.1 + units.mean(v) + units.variance(v)
            return tanh(v + scale * 0.1) * 0.5 + s.h * 0.5

    q = random_recurrence(Reduced, torch.float32, hidden=20, steps=4, **FORMS["both, two directions"])
    assert_equal_to(found(q, forced=(4, 8, 4)), exact(q), 2e-6)


@plain_if(lambda steps, batch: not batch)
@pytest.mark.parametrize("steps, batch", [(3, 0), (2, 1)])
def test_an_empty_batch_and_one_sequence(steps, batch):
    q = random_recurrence(EVERY["gru"], torch.float32, hidden=8, batch=batch, steps=steps)
    assert_equal_to(found(q), exact(q), 1e-6)


@pytest.mark.heavy
@pytest.mark.parametrize("forced", [(1, 8, 4), (2, 16, 8), (4, 8, 12), (8, 16, 4)])
@pytest.mark.parametrize("name", ["lstm", "gru", "layer_norm_lstm"])
def test_other_divisions(name, forced):
    """Several items a thread, the depth split in parts, 16 rows, more warps than tiles."""
    hidden = 20 if name == "layer_norm_lstm" else 50  # its values leave less memory
    q = random_recurrence(EVERY[name], torch.float32, hidden=hidden, batch=11, steps=4, resets=True)
    assert_equal_to(found(q, forced=forced), exact(q), 2e-6)


@plain_if(lambda name: name == "lstm")
@pytest.mark.parametrize("name", ["lstm", "gru_reset_before"])
def test_weights_in_shared_memory(name, monkeypatch):
    """Weights are in shared memory where registers cannot hold all of them."""
    monkeypatch.setattr(division, "MOST_REGISTERS", division.OWN_REGISTERS + 32)
    q = random_recurrence(EVERY[name], torch.float32, hidden=40, steps=4, resets=True)
    with emulated(forced=SMALL) as emulator:
        ours = results(q, BACKEND)
    assert_equal_to(ours, exact(q), 2e-6)
    assert all(each.held < each.depth_tiles * each.tiles for each in _first_products(q)), emulator


def _first_products(q):
    with emulated(forced=SMALL):
        return cluster.division_of(Shape.of(q), "forward").products[-1:]


def test_reset_states_of_any_strides():
    """One state for all sequences, which share its memory."""
    q = random_recurrence(EVERY["lstm"], torch.float32, hidden=24, steps=5, resets=True)
    shared = [state.detach()[:, :1].expand(state.shape) for state in q.reset_states]
    assert not any(state.is_contiguous() for state in shared)
    wanted = q._replace(reset_states=[state.contiguous().requires_grad_() for state in shared])
    q = q._replace(reset_states=[state.requires_grad_() for state in shared])
    assert_equal_to(found(q), exact(wanted), 1e-6)


def test_the_same_bits_in_any_order():
    q = random_recurrence(EVERY["lstm"], torch.bfloat16, hidden=24, steps=6, resets=True)
    first, *others = (found(q, seed) for seed in range(4))
    for other in others:
        assert all(map(torch.equal, first, other))


@plain_if(lambda name: name == "lstm")
@pytest.mark.parametrize("name", ["lstm", "gru_reset_before", "recurrent_highway", "layer_norm_gru", "layer_norm_lstm"])
def test_each_wait_is_needed(name):
    """With one wait left out, some order of threads gives other numbers, or the kernel does not end."""
    q = random_recurrence(EVERY[name], torch.float32, hidden=24, steps=6, batch=3, resets=True)
    with emulated(forced=SMALL) as emulator:
        right = results(q, BACKEND)
    unnoticed = [
        wait for wait in sorted(emulator.waits) if not any(_is_noticed(q, right, wait, seed) for seed in range(8))
    ]
    assert len(emulator.waits) > 8
    assert not unnoticed, unnoticed


def _is_noticed(q, right, wait, seed):
    try:
        return not all(map(torch.equal, right, found(q, seed, wait)))
    except RuntimeError:
        return True


def compiled(cell, which, hidden, batch, dtype, architecture, bounded):
    """The kernel that the plan chooses, compiled."""
    printed = source.printed(cell)
    layout, found = printed.layout(which), []
    for spare in cluster.SPARE:
        divided = division.divide(Wanted(layout, hidden, batch, 1, dtype.itemsize, spare), H200)
        if isinstance(divided, str):
            break
        without = () if bounded else ("reset_state.", "grad_reset_state.")
        arrays = [Given(a, a.startswith("grad_reset_state."), 4, 0) for a in layout.arrays if not a.startswith(without)]
        how = How(hidden, 1, dtype, tuple(arrays), bounded, (-1,) * len(layout.sums), 16, False)
        text = source.text(printed, which, divided, how)
        found.append(nvrtc.compiled(text, source.headers(), architecture))
        if not found[-1].stack_bytes:
            break
    return min(found, key=lambda code: code.stack_bytes)


needs_nvrtc = pytest.mark.skipif(nvrtc.why_not_available() is not None, reason=f"{nvrtc.why_not_available()}")


@needs_nvrtc
@plain_if(lambda hidden, dtype, name, architecture: (name, hidden, architecture) == ("lstm", 512, "sm_90"))
@pytest.mark.parametrize("architecture", ["sm_90", "sm_100"])
@pytest.mark.parametrize("name", ["lstm", "gru"])
@pytest.mark.parametrize(
    "hidden, dtype",
    [(512, torch.bfloat16), (256, torch.bfloat16), (128, torch.float16), (128, torch.float32), (768, torch.float16)],
)
def test_compiled_without_a_spill(hidden, dtype, name, architecture):
    # At 768 units, the backward pass of an LSTM does not fit in registers: it spills 56 bytes.
    for which in source.PASSES if hidden < 768 else ("forward",):
        for bounded in (False, True):
            made = compiled(EVERY[name], which, hidden, 16, dtype, architecture, bounded)
            assert made.stack_bytes == 0
            assert made.registers <= 255


@needs_nvrtc
@pytest.mark.heavy
@pytest.mark.parametrize("name", EVERY)
def test_every_cell_compiled_without_a_spill(name):
    skip_without_kernels(name)
    for which in source.PASSES:
        assert compiled(EVERY[name], which, 256, 16, torch.bfloat16, "sm_90", True).stack_bytes == 0


@pytest.mark.parametrize(
    "changed, words",
    [
        ({"dtype": torch.float64}, "not torch.float64"),
        ({"cell": cells.MemoryBlockLSTM}, "reductions of heads"),
        ({"cell": cells.IndRNN}, "no product inside the time loop"),
        ({"hidden": 4096, "width": 4096}, "do not fit"),
        ({"width": 5}, "a projection"),
        ({"layers": 2}, "one layer at a time"),
    ],
)
def test_what_it_refuses_by_name(changed, words):
    shape = Shape(EVERY["lstm"], torch.device("cpu"), torch.bfloat16, 10, 4, 1, 64, 64)
    with emulated():
        assert cluster.why_not(shape) is None
        assert words in cluster.why_not(shape._replace(**changed))


def test_a_device_without_clusters():
    q = random_recurrence(EVERY["lstm"], torch.bfloat16, hidden=8)
    with pytest.raises(RuntimeError, match="only NVIDIA's GPUs have thread-block clusters, and the input is on cpu"):
        results(q, BACKEND)


def test_layers_and_their_plan():
    """Modules run the plan like any backend, in training and in inference, and report its division."""
    layers = [seqcells.LSTM(7, 24, 2, bidirectional=True, backend=name) for name in (BACKEND, "reference")]
    layers[1].load_state_dict(layers[0].state_dict())
    input = torch.randn(5, 3, 7)
    with emulated(forced=SMALL):
        ours = gradients([layers[0](input)[0]], [*layers[0].parameters()])
        with torch.no_grad():
            inference, reason = layers[0](input)[0], layers[0].plan(input).reason
    expected = layers[1](input)[0]
    assert_equal_to([inference], [expected], 1e-6)
    assert_equal_to(ours, gradients([expected], [*layers[1].parameters()]), 2e-6)
    assert "forward by clusters of 2 blocks for 8 sequences" in reason


def test_only_clusters_that_the_device_runs():
    """A part of a GPU may run no cluster of 16 blocks, or only small clusters."""
    layout = source.printed(EVERY["lstm"]).layout("forward")
    wanted = Wanted(layout, 512, 16, 1, 2)
    assert division.divide(wanted, H200).blocks == 16
    assert division.divide(wanted, H200._replace(at_once=(132, 66, 31, 15, 0))).blocks <= 8
    assert "do not fit" in division.divide(wanted, H200._replace(at_once=(132, 0, 0, 0, 0)))
    assert "runs no cluster" in division.divide(wanted, H200._replace(at_once=(0,) * 5))


@pytest.mark.parametrize("which", source.PASSES)
@pytest.mark.parametrize("hidden", range(8, 721, 56))
def test_sizes_of_any_kind_fit(hidden, which):
    """Also sizes that leave the last blocks of a cluster without units."""
    wanted = Wanted(source.printed(EVERY["lstm"]).layout(which), hidden, 16, 1, 2, cluster.SPARE[0])
    assert not isinstance(division.divide(wanted, H200), str)


def test_blocks_without_units():
    q = random_recurrence(EVERY["lstm"], torch.float32, hidden=17, steps=4, **FORMS["both, two directions"])
    assert_equal_to(found(q, forced=(8, 8, 4)), exact(q), 1e-6)


def test_what_cannot_go_back_does_not_go_forward(monkeypatch):
    """Where gradients are wanted, forward is refused too. Backward checks again, because the precision may have
    changed."""
    q = random_recurrence(EVERY["lstm"], torch.float32, hidden=8)
    with emulated(forced=SMALL):
        output, _ = run.recurrence(q, BACKEND)
        monkeypatch.setattr(cluster.precision, "mode", lambda dtype: "ieee")
        with pytest.raises(RuntimeError, match=r"cannot run this layer backward: .*TF32, which the settings"):
            output.sum().backward()
        monkeypatch.setattr(cluster, "why_not", lambda shape: None)
        with torch.no_grad():
            run.recurrence(q, BACKEND)
        with pytest.raises(RuntimeError, match="cannot run this layer backward"):
            run.recurrence(q, BACKEND)


def test_a_kernel_that_cannot_be_compiled(monkeypatch):
    def fails(text, device):
        raise nvrtc.CannotCompileError("no room on the disk")

    q = random_recurrence(EVERY["lstm"], torch.float32, hidden=8)
    with emulated(forced=SMALL):
        monkeypatch.setattr(cluster, "stack_bytes", fails)
        with pytest.raises(RuntimeError, match="the cluster plan cannot run this layer forward: no room on the disk"):
            run.recurrence(q, BACKEND)


class Driver:
    """Replaces NVIDIA's driver: it records each call with the thread's capture mode, and answers."""

    def __init__(self):
        self.called, self.mode, self.failure = [], 0, 0

    def __getattr__(self, name):
        def call(*given):
            self.called.append((name, self.mode))
            if name == "cuThreadExchangeStreamCaptureMode":
                mode = given[0]._obj
                mode.value, self.mode = self.mode, mode.value
            if name == "cuCtxGetCurrent":
                given[0]._obj.value = 1
            if name == "cuOccupancyMaxActiveClusters":
                given[0]._obj.value = 7
                return self.failure
            return 0

        return call


def test_the_driver_is_asked_even_while_a_graph_is_captured(monkeypatch):
    """The calls are made in the relaxed mode, and the mode is restored afterwards."""
    library = Driver()
    monkeypatch.setattr(driver, "_library", lambda: library)
    function, launch = driver.Function(b"", "kernel", 1024), driver.Launch(16, 1, 16, 32, 1024)
    assert function.clusters_at_once(launch) == 7
    relaxed = {name for name, mode in library.called if mode == driver.RELAXED}
    assert {"cuModuleLoadData", "cuOccupancyMaxActiveClusters"} <= relaxed
    assert library.mode == 0
    library.failure = 912  # no such cluster
    assert function.clusters_at_once(launch) == 0
    assert library.mode == 0


@needs_nvrtc
def test_the_empty_kernel_is_compiled():
    assert nvrtc.compiled(EMPTY, {}, "sm_90").stack_bytes == 0
