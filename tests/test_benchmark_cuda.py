"""Timing on CUDA: what can be checked without a GPU, and the real timing where there is one."""

import contextlib
import time
from types import SimpleNamespace

import pytest
import torch

import seqcells
from benchmarks import run
from benchmarks.case import Case
from benchmarks.providers import AA, BASELINE, PROVIDERS, Prepared
from benchmarks.providers.torch_nn import TorchNN
from benchmarks.shapes import Shape
from benchmarks.timing import Effort
from benchmarks.timing.events import Events
from seqcells import Choice

EFFORT = Effort(seconds=0.01, fewest=2, most=1, extensions=1)
GPU_FLOORS = {"gemm_flops": {"float32": 1e13}, "copy": 1e12, "launch": 1e-6, "graph_launch": 1e-6, "grid_barrier": 1e-6}


@pytest.fixture(autouse=True)
def exact_products():
    """Overrides the fixture: the benchmark chooses the precision of products itself."""


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """On a busy machine two threads spend their time waiting for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Uncapturable(TorchNN):
    """torch.nn that fails when a CUDA graph captures it."""

    def prepare(self, case, weights, inputs):
        prepared = super().prepare(case, weights, inputs)

        def run_once(index):
            if torch.cuda.is_current_stream_capturing():
                raise RuntimeError("it synchronizes")
            return prepared.run(index)

        return prepared._replace(run=run_once)


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Imitates torch.cuda on the CPU, as far as the timer uses it."""

    class Event:
        def __init__(self, enable_timing: bool) -> None: ...

        def record(self) -> None:
            self.at = time.perf_counter()

        def elapsed_time(self, end: "Event") -> float:
            return 1e3 * (end.at - self.at)

    class Graph:
        def replay(self) -> None: ...

    capturing = []

    @contextlib.contextmanager
    def graph(_):
        capturing.append(True)
        try:
            yield
        finally:
            capturing.pop()

    stream = SimpleNamespace(wait_stream=lambda other: None)
    for name, replacement in {
        "Event": Event,
        "CUDAGraph": Graph,
        "graph": graph,
        "Stream": lambda: stream,
        "stream": lambda _: contextlib.nullcontext(),
        "current_stream": lambda: stream,
        "is_current_stream_capturing": lambda: bool(capturing),
        "synchronize": lambda: None,
        "empty_cache": lambda: None,
        "mem_get_info": lambda: (2**30, 2**30),
        "get_device_properties": lambda _: SimpleNamespace(L2_cache_size=2**14),
        "memory_allocated": lambda: 100,
        "max_memory_allocated": lambda: 300,
        "reset_peak_memory_stats": lambda: None,
    }.items():
        monkeypatch.setattr(torch.cuda, name, replacement)


def _measured(device: str, deadline: float | None = None) -> list:
    providers = [PROVIDERS[name] for name in (BASELINE, AA, "seqcells auto", "seqcells torch", "seqcells torch cell")]
    suites = ("step", "sequence", "training", "streaming", "stepping", "packed", "memory")
    planned = run.cases(suites, ("lstm",), [Shape(3, 8, 20)], ("float32",), device, chosen=True)
    report = run.start("cpu", 1, "test", GPU_FLOORS)
    timer = Events([*providers, Uncapturable("uncapturable")], EFFORT)
    timer.deadline = deadline
    with timer:
        run.run(report, timer, planned, None, lambda *_: None)
    return report


def _check(report) -> None:
    assert report.complete and not report.left_out
    assert not [row for row in report.rows if row.status in ("failed", "wrong")]
    for row in report.rows:
        if row.status != "ok":
            continue
        if row.unit == "B":
            assert row.figure.median > 0 and row.graph is None
            continue
        assert row.figure.samples >= 2 and row.distance > 0
        if row.provider == "uncapturable":
            assert row.graph is None and any("no CUDA graph: RuntimeError: it sync" in note for note in row.notes)
        elif row.provider in (BASELINE, AA) and row.suite != "packed":
            assert row.graph is not None
    assert report.aa["cases"] == 6


@pytest.mark.heavy
def test_events_acted_out_on_the_cpu(pretended: None) -> None:
    _check(_measured("cpu"))


def test_past_its_deadline_only_torch_nn_and_aa_end_the_case(pretended: None) -> None:
    report = _measured("cpu", deadline=time.monotonic())
    assert [row.provider for row in report.rows if row.status == "ok"] == [BASELINE, AA]
    assert len(report.left_out) == 6 and not report.complete


def test_flags_have_a_row_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the runs of this row use flags. There is no such row where no programs wait."""
    pytest.importorskip("triton")
    from benchmarks.providers.seqcells_backends import Seqcells

    provider = PROVIDERS["seqcells triton-persistent flags"]
    monkeypatch.setattr(Seqcells, "prepare", lambda *_: Prepared(lambda index: seqcells.current_settings().flags, dict))
    monkeypatch.setattr(Seqcells, "why_not", lambda *_: None)
    cases = [Case("sequence", "lstm", Shape(16, hidden, 100), "bfloat16", "cuda") for hidden in (64, 512)]
    assert [provider.why_not(case) for case in cases] == ["a program that has all units waits for nobody", None]
    assert provider.prepare(cases[1], None, []).run(0) and not seqcells.current_settings().flags


def test_the_persistent_plans_own_model_stands_beside_what_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    monkeypatch.setattr("seqcells.kernels.triton.host.configurations.processors", lambda device: (132, 227 << 10))
    from benchmarks.providers import seqcells_backends

    def notes(suite: str, hidden: int = 512, backend: str = "triton-persistent", device: str = "cuda") -> list[str]:
        case = Case(suite, "lstm", Shape(16, hidden, 100), "bfloat16", device)
        return seqcells_backends.Seqcells(backend)._notes(case, Choice(backend, "asked for by name"))

    assert notes("sequence") == ["by its model 214 µs, the input's product left out"]
    assert notes("training") != notes("sequence") != notes("streaming")
    assert notes("memory") == notes("sequence", 4096) == notes("sequence", backend="triton") == []
    assert notes("sequence", device="cpu") == []


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_events_on_a_gpu() -> None:
    _check(_measured("cuda"))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_the_gpus_floors() -> None:
    from benchmarks.rooflines import cuda

    found = cuda.measure(["tf32", "bfloat16"])
    assert "missing" not in found
    assert all(rate > 1e12 for rate in found["gemm_flops"].values())
    assert 1e-7 < found["grid_barrier"] < 1e-4 and 1e-7 < found["launch"] < 1e-4
