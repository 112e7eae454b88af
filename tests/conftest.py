"""Every test runs with uninitialised memory filled with NaN, and knows its device."""

import os
import re
import tempfile
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # torch requires it for deterministic cuBLAS
os.environ.setdefault("KERAS_BACKEND", "torch")

import pytest
import torch
import torch._dynamo
from support import DEVICES, backends

from seqcells import cells
from seqcells.backends import BACKENDS
from seqcells.derive.transformed_cells import transformed
from seqcells.kernels import cpu, triton
from seqcells.measured import estimates
from seqcells.system import machine

# Many tests of one process compile a layer's `forward`, and each one counts as a recompilation.
torch._dynamo.config.recompile_limit = torch._dynamo.config.accumulated_recompile_limit = 10_000

if not cpu.why_not_available():
    from seqcells.kernels.cpu import compiled, library

if triton.INSTALLED and triton.interpreted():
    # For the tests' own kernels; the package's launches import the interpreter themselves.
    from seqcells.kernels.triton.host import interpreter  # noqa: F401


OWN_CACHE = pytest.StashKey[tempfile.TemporaryDirectory]()


@pytest.fixture(autouse=True)
def poisoned_empty():
    """Under deterministic algorithms torch fills what `empty` returns with NaN, so unwritten memory shows."""
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.use_deterministic_algorithms(True, warn_only=True)
    assert torch.empty(3).isnan().all()
    torch.manual_seed(0)
    yield
    torch.use_deterministic_algorithms(False)


def pytest_configure(config):
    """Keep tests, and processes that tests start, from the user's home.

    Libraries of compiled cells are kept between runs of the tests. The built-in cells are compiled first. No more cells
    are compiled, except in tests about that.
    """
    own = config.stash[OWN_CACHE] = tempfile.TemporaryDirectory()
    for folder in ("kernels", "locks"):  # shared by all workers
        shared = config.rootpath / ".pytest_cache" / folder
        shared.mkdir(parents=True, exist_ok=True)
        Path(own.name, folder).symlink_to(shared)
    os.environ |= {"SEQCELLS_CACHE": own.name, "CXXFLAGS": "-O1 -DSEQCELLS_WHOLE_VECTORS=false"}
    if not hasattr(config, "workerinput") and not cpu.why_not_available():
        compile_cells()
    os.environ["SEQCELLS_COMPILE"] = "never"


def compile_cells():
    """Compile the registry's cells that the extension was built without, for the best instruction set of this
    machine."""
    projected = [transformed(cell, "projection(1)") for cell in cells.BUILT_IN.values() if cell.projection]
    wanted = [(cell, t) for cell in (*cells.BUILT_IN.values(), *projected) for t in (torch.float32, torch.float64)]
    with ThreadPoolExecutor(max(1, machine.cores() // 2)) as pool, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        [*pool.map(lambda each: compiled.why_not(*each), wanted)]


def pytest_unconfigure(config):
    config.stash[OWN_CACHE].cleanup()


@pytest.fixture
def compiling(monkeypatch):
    """Cells that the CPU engine was built without are compiled at first use, quickly, and once for all workers."""
    monkeypatch.delenv("SEQCELLS_COMPILE")


@pytest.fixture
def examples_on_path(monkeypatch):
    """Put the examples on the path, so that tests can import them by name."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "examples")


@pytest.fixture
def tables(tmp_path):
    """Imitate a machine of class avx2-l2-512k with other tables: ``use(own, shipped)`` sets its own tables and the
    package's. At first there are none."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEQCELLS_CACHE", str(tmp_path / "cache"))
        patch.setattr(estimates, "SHIPPED", tmp_path / "shipped")
        patch.setattr(estimates, "instruction_set", lambda: "avx2")
        patch.setattr(machine, "caches", lambda: {"l1d": 32 << 10, "l2": 512 << 10, "l3": 0})

        def use(own=(), shipped=()):
            for folder, wanted in ((estimates.own_folder(), own), (estimates.SHIPPED, shipped)):
                folder.mkdir(parents=True, exist_ok=True)
                for path in folder.iterdir():
                    path.unlink()
                for table in wanted:
                    (folder / f"{table.name}.json").write_text(table.to_json())
            estimates.reload()

        use()
        yield use
    estimates.reload()


@pytest.fixture
def kernels_of_a_gpu(monkeypatch):
    """Pretend that Triton's kernels run here on an NVIDIA GPU: backends are chosen, but nothing can run."""
    pytest.importorskip("triton")
    possible = BACKENDS["triton"]._replace(why_not_available=lambda: None, why_not=lambda call: None)
    monkeypatch.setitem(BACKENDS, "triton", possible)
    monkeypatch.setattr("seqcells.kernels.triton.host.configurations.nvidia", lambda: True)


@pytest.fixture
def gpu(tables, kernels_of_a_gpu, monkeypatch):
    """Pretend that torch's GPU is ``use(name, multiprocessors)``: at first an H200, with no `tables`. ``use.asked``
    lists the devices whose properties were requested."""

    def use(name, multiprocessors):
        found = SimpleNamespace(name=name, multi_processor_count=multiprocessors)
        use.asked = []
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: use.asked.append(device) or found)
        monkeypatch.setattr(
            "seqcells.kernels.triton.host.configurations.processors", lambda device: (multiprocessors, 227 << 10)
        )
        estimates.reload()

    monkeypatch.setattr(triton, "interpreted", lambda: False)
    monkeypatch.setattr(torch.backends.cudnn.rnn, "fp32_precision", "tf32")  # torch's default
    use("NVIDIA H200", 132)
    return use


@pytest.fixture(params=[] if cpu.why_not_available() else library.TARGETS)
def target(request, monkeypatch, compiling):
    """Each instruction set that this machine has."""
    monkeypatch.setattr(library, "target", request.param)
    return request.param


@pytest.fixture
def threads(monkeypatch):
    """Sets the number of the CPU engine's threads, as if there were a core for each."""
    monkeypatch.setattr(library, "cores", lambda: 64)
    yield torch.set_num_threads
    torch.set_num_threads(1)


@pytest.fixture
def own_registry():
    """Restores the registry after the test."""
    before = dict(cells.REGISTRY)
    yield
    cells.REGISTRY.clear()
    cells.REGISTRY.update(before)


@pytest.fixture(autouse=torch.cuda.is_available())
def exact_products():
    """Make float32 products exact on a GPU too, where recurrent layers may use TF32 by default. Tests of equality then
    hold to float32's precision."""
    switch = torch.backends.cudnn.rnn
    before = switch.fp32_precision
    switch.fp32_precision = "ieee"
    yield
    switch.fp32_precision = before


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """Skip a test in float64, or in several dtypes, on a GPU whose float64 kernels spill."""
    try:
        return (yield)
    except RuntimeError as refusal:
        if torch.cuda.is_available() and re.match(r".* cannot run this (call|layer): its kernels spill", str(refusal)):
            pytest.skip(str(refusal))
        raise


# Tensors are small: a second thread would only wait, and take a core from the next worker.
torch.set_num_threads(1)


@pytest.hookimpl(tryfirst=True)  # before pytest selects by marks
def pytest_collection_modifyitems(items):
    """Leave out each backend on devices that it does not run on; a test without a device runs on the CPU. Mark tests
    heavy or exhaustive by a condition on their parameters."""
    known = set(backends("lstm"))
    here = {device: set(backends("lstm", devices=[device])) for device in DEVICES}
    parameters = [(getattr(item, "callspec", None) and item.callspec.params) or {} for item in items]
    items[:] = [
        item
        for item, given in zip(items, parameters, strict=True)
        if given.get("backend") not in known - here[given.get("device", "cpu")]
    ]
    for item in items:
        for condition, otherwise in (("plain_if", "heavy"), ("heavy_if", "exhaustive")):
            mark = item.get_closest_marker(condition)
            if mark and not mark.args[0](**item.callspec.params):
                item.add_marker(otherwise)
    # The longest tests first, which run whole suites in a process of their own. At the end, one worker would wait for
    # them.
    items.sort(key=lambda item: not re.match("test_interpreted|.*in_a_process_that_interprets", item.name))


def pytest_report_header():
    return f"devices: {', '.join(DEVICES)}" + (
        "" if torch.cuda.is_available() else " (no GPU here: nothing runs on cuda)"
    )


@pytest.fixture(params=[pytest.param(name, marks=[pytest.mark.cuda] if name == "cuda" else []) for name in DEVICES])
def device(request):
    """Each device that this machine has."""
    return request.param
