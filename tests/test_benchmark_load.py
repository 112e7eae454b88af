"""The suites under load: busy processes run only while they should, and reports show their effect."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from benchmarks import compare, plots, report, rooflines, run, schema, tables
from benchmarks.case import Case
from benchmarks.providers import AA, BASELINE, ONE_THREAD, PROVIDERS, TWICE
from benchmarks.shapes import Shape
from benchmarks.suites import SUITES, label
from benchmarks.timing import ALONE, SHARED, Effort, Outcome, busy
from benchmarks.timing.processes import Processes
from seqcells.system import machine

ROOT = Path(__file__).parent.parent
TINY = Shape(2, 8, 5)


def state(pid: int) -> str | None:
    """``R`` for a running process, ``Z`` for a dead one whose parent has not waited for it, None for no process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except OSError:
        return None


def test_busy_processes_run_inside_the_block_and_are_gone_behind_it() -> None:
    with busy.processes(2) as pids:
        assert len(set(pids)) == 2 and all(state(pid) == "R" for pid in pids)
    assert [state(pid) for pid in pids] == [None, None]
    with pytest.raises(ZeroDivisionError), busy.processes(1) as pids:
        raise ZeroDivisionError
    assert state(pids[0]) is None
    with busy.processes(0) as pids:
        assert pids == []


def test_no_process_outlives_a_benchmark_that_is_killed() -> None:
    """Neither a busy process, nor a provider's stopped process, nor the server that forked it."""
    program = (
        "import time; from benchmarks.providers.torch_nn import TorchNN\n"
        "from benchmarks.timing import busy; from benchmarks.timing.processes import _Process\n"
        "provider = _Process(TorchNN(), 1).process.pid\n"
        "with busy.processes(1) as pids: print(provider, *pids, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    with parent:
        stopped, spinning = map(int, parent.stdout.readline().split())
        server = int(Path(f"/proc/{stopped}/stat").read_text().rpartition(") ")[2].split()[1])
        assert (state(stopped), state(spinning)) == ("T", "R") and server != parent.pid
        parent.send_signal(signal.SIGKILL)
    patience = time.monotonic() + 20
    while {state(pid) for pid in (stopped, spinning, server)} - {None, "Z"} and time.monotonic() < patience:
        time.sleep(0.01)
    assert not {state(pid) for pid in (stopped, spinning, server)} - {None, "Z"}


def test_a_load_counts_usable_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cores", lambda: 3)
    assert [busy.count(load) for load in (0, 0.5, 1, 2)] == [0, 2, 3, 6]
    assert [PROVIDERS[name].threads(2) for name in ("seqcells auto", ONE_THREAD, TWICE)] == [2, 1, 6]


def test_cases_of_suites_under_load() -> None:
    def planned(*suites: str, **options) -> list[Case]:
        return run.cases(suites, ("lstm",), [TINY], ("float32",), "cpu", chosen=True, **options)

    assert [case.load for case in planned("sequence", "loaded")] == [0, 1, 0, 2]
    assert [case.load for case in planned("sequence", "loaded", loads=(0.5,))] == [0, 0.5]
    assert [str(case) for case in planned("loaded", loads=(1.0,))] == ["loaded × 1 lstm B2xH8xT5 float32"]
    assert planned("loaded-streaming", loads=(0,))[0].shape.steps == 16
    under_load = [name for name, suite in SUITES.items() if suite.loads]
    assert [label(name, 2) for name in ("training", *under_load)] == [
        "training",
        *(f"{name} × 2" for name in under_load),
    ]
    for name in (ONE_THREAD, TWICE):
        why_not = PROVIDERS[name].why_not
        assert why_not(Case("training", "lstm", TINY)) == "other numbers of threads are for suites under load"
        if not PROVIDERS[name].why_not_available("cpu"):
            assert [why_not(Case(suite, "lstm", TINY)) for suite in under_load] == [None] * len(under_load)


def test_under_load_a_sample_goes_by_the_clock() -> None:
    from benchmarks.timing.worker import Worker

    class Slow:
        """Takes 0.1 s at its second call, the first after the warm-up, and no time otherwise."""

        calls = 0

        def run(self, index: int) -> None:
            self.calls += 1
            time.sleep(0.1 if self.calls == 2 else 0)

    worker = Worker(None)
    worker.prepared = slow = Slow()
    shared = dataclasses.replace(SHARED, warm_up=1e-9, sample=0.02)
    ((seconds, calls),) = worker.turn(1e-3, shared)
    assert calls == 1 and slow.calls == 2 and seconds > 0.09
    ((seconds, calls),) = worker.turn(1e-3, shared)
    assert calls > 1 and seconds < 0.02 <= 1.5 * seconds * calls
    before = slow.calls
    worker.turn(1.0, dataclasses.replace(shared, sample=0))
    assert slow.calls == before + 1  # a call of a second has no warm-up
    assert len(worker.turn(1e-6, dataclasses.replace(ALONE, sample=1e-5))) == ALONE.samples


def test_lengths_of_turns() -> None:
    effort = Effort(seconds=0.3)
    assert [ALONE.untimed(call) for call in (1e-4, 0.05, 0.2)] == [10, 1, 0]
    assert [ALONE.samples_of(call) for call in (1e-4, 0.05)] == [3, 1]
    assert ALONE.turn(1e-4) == pytest.approx(13e-3) and ALONE.turn(0.05) == pytest.approx(0.1)
    assert [effort.turns(call, ALONE) for call in (1e-4, 1e-2, 1.0)] == [23, 15, effort.fewest]
    assert effort.turns(1e-4, SHARED) == 7


def outcome(provider: str, *milliseconds: float, calls: tuple[int, ...] = ()) -> Outcome:
    figures = [each * 1e-3 for each in milliseconds]
    return Outcome(provider, provider.startswith("seqcells"), error=0.0, figures=figures, calls=list(calls))


@pytest.fixture
def told() -> schema.Report:
    """A report of one layer, alone and beside busy processes, with made-up numbers."""
    made = run.start("cpu", 2, "test", {})
    alone, beside = Case("loaded", "lstm", TINY), Case("loaded", "lstm", TINY, load=1)
    for case, factor in ((alone, 1), (beside, 3)):
        for name, time_of_a_call in ((BASELINE, 4), (AA, 4), ("seqcells auto", 2), (ONE_THREAD, 3)):
            made.rows.append(run.row(case, outcome(name, factor * time_of_a_call, calls=(10,))))
    made.rows.append(run.row(alone, outcome(TWICE, 5, calls=(10,))))
    made.rows.append(run.row(beside, outcome("onnxruntime", 1, 21, 1, calls=(100, 100, 200))))
    run.relate(made)
    return made


def test_under_load_the_mean_counts(told: schema.Report) -> None:
    rival = told.rows[-1].figure
    assert (rival.median, rival.mean, rival.value) == pytest.approx((1e-3, 6e-3, 6e-3))
    rows = {(row.provider, row.load): row for row in told.rows}
    ours = rows["seqcells auto", 1]
    assert (ours.ratio, ours.ratio_to_rival, ours.to_one_thread, ours.kept) == pytest.approx((2, 1, 1.5, 1 / 3))
    assert rows[TWICE, 0].kept == pytest.approx(2 / 5)  # divided by `auto`'s value with the usual threads
    assert rows[TWICE, 0].ratio_to_rival == pytest.approx(4 / 5)
    plain = run.row(Case("sequence", "lstm", TINY), outcome("x", 1, 2, 9, calls=(1, 1, 1)))
    assert plain.figure.mean is None and plain.figure.value == plain.figure.median and plain.load == 0


def test_only_cases_without_load_tell_of_the_timing(told: schema.Report) -> None:
    for row in told.rows:
        if row.provider == AA and row.load:
            row.figure = dataclasses.replace(row.figure, mean=row.figure.mean * 2)
    run.relate(told)
    assert told.aa["cases"] == 1 and told.aa["within"]
    told.rows = [row for row in told.rows if row.load]
    run.relate(told)
    assert told.aa["cases"] == 1 and not told.aa["within"]


def test_no_floor_under_load() -> None:
    rates = {"gemm_flops": {"float32": 1e11}, "threads": 1, "read": [[1e5, 2e11]], "barrier": None}
    made = run.start("cpu", 1, "test", {"by_threads": [rates]})
    made.rows = [run.row(Case("loaded", "lstm", TINY, load=load), outcome("x", 1, calls=(1,))) for load in (0, 1)]
    run.relate(made)
    assert [row.roofline is None for row in made.rows] == [False, True]
    assert rooflines.model(made.rows[0], made.rooflines).seconds == made.rows[0].roofline.seconds


def test_loads_in_files_tables_and_pictures(told: schema.Report, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = tmp_path / "cpu.json"
    told.save(path)
    assert schema.Report.load(path) == told
    tables.print_report(told)
    text = capsys.readouterr().out
    assert "loaded × 0 · lstm" in text and "loaded × 1 · lstm" in text
    assert "× one thread" in text and "33%" in text
    markdown = report.markdown({"cpu": told})
    assert "| loaded × 1 | lstm | one thread | 1 |" in markdown and report.UNDER_LOAD in markdown
    assert compare.compared(told, told)[0][0].startswith("loaded × ")
    if plots.draw(told, tmp_path):
        names = {each.name for each in tmp_path.glob("*.png")}
        assert names == {f"cpu-loaded-{load}-lstm-float32-ratio.png" for load in (0, 1)}


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("load", -1.0, "a load of -1.0"),
        ("load", "much", "expected float"),
        ("to_one_thread", "much", "expected float"),
        ("kept", [], "expected float"),
    ],
)
def test_rows_that_cannot_be(told: schema.Report, tmp_path: Path, field: str, value: object, problem: str) -> None:
    with pytest.raises(schema.SchemaError, match=problem):
        schema.read(schema.Row, dataclasses.asdict(told.rows[0]) | {field: value}, "row")
        dataclasses.replace(told, rows=[dataclasses.replace(told.rows[0], **{field: value})]).check()


def test_a_mean_is_a_time(told: schema.Report) -> None:
    told.rows[0].figure = dataclasses.replace(told.rows[0].figure, mean=-1.0)
    with pytest.raises(schema.SchemaError, match=r"a mean of -1\.0"):
        told.check()


def test_a_case_under_load_through_real_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """There are as many busy processes as cores; they do not count as other programs, and end with the case."""
    before, seen = torch.get_num_threads(), []
    processes = busy.processes

    def watched(number: int):
        seen.append(number)
        return processes(number)

    monkeypatch.setattr(busy, "processes", watched)
    monkeypatch.setattr(machine, "cores", lambda: 1)
    providers = [PROVIDERS[name] for name in (BASELINE, AA, TWICE)]
    made = run.start("cpu", 1, "test", {})
    planned = run.cases(("loaded",), ("lstm",), [TINY], ("float32",), "cpu", chosen=True, loads=(0, 1))
    with Processes(providers, Effort(seconds=0.01, fewest=1, most=1, extensions=0), threads=1) as timer:
        run.run(made, timer, planned, None, lambda *_: None)
        assert 0 <= timer.others[-1] <= 1
    assert seen == [0, 1] and made.complete
    assert [(row.load, row.status) for row in made.rows] == [(0, "ok")] * 3 + [(1, "ok")] * 3
    assert all(row.figure.mean > 0 for row in made.rows)
    assert [row.notes[0] for row in made.rows if row.provider == TWICE] == ["2 threads"] * 2
    assert not [pid for pid in os.listdir("/proc") if pid.isdecimal() and _is_a_child(int(pid), "spin.py")]
    torch.set_num_threads(before)


def _is_a_child(pid: int, name: str) -> bool:
    """Whether the process is a child of this one and runs a file of that name."""
    try:
        parent = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[1]
        return int(parent) == os.getpid() and name in Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return False
