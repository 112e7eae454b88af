"""A rehearsed GPU session: no measurement is lost, halves merge to the whole, and rows know their code."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from session_rows import LATE, OURS, only, report, row

from benchmarks import run, schema
from benchmarks.case import Case
from benchmarks.gpu import cases, children, merge, pytest_runs, session, stages, time_cases
from benchmarks.providers import AA, BASELINE
from benchmarks.schema import Report, Row
from benchmarks.timing import Outcome

ROOT = Path(__file__).parent.parent
needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")


# The rehearsal, cut short.

# Packages that a machine with a GPU may lack.
LACKING = ("rich", "matplotlib", "sklearn", "onnx", "onnxruntime", "openvino", "keras", "setuptools")


def rehearsing(folder: Path, *arguments: str) -> subprocess.Popen:
    """A rehearsal in a process of its own, in which many packages cannot be imported."""
    bare = folder.parent / "bare"
    bare.mkdir(exist_ok=True)
    (bare / "sitecustomize.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({LACKING}))\n")
    words = [sys.executable, "-m", "benchmarks.gpu", "--rehearse", "--out", str(folder), "--cores", "2", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(bare), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        words, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def interrupted(process: subprocess.Popen, folder: Path, number: int, rows: int) -> list[str]:
    """Send a signal once the file has ``rows`` rows; return the row lines that the timing process had logged by
    then."""
    while not (folder / session.RESULT).exists() or len(Report.load(folder / session.RESULT).rows) < rows:
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.02)
    process.send_signal(number)
    process.wait(timeout=20)
    return [line for line in (folder / session.LOG).read_text().splitlines() if '"row"' in line]


def measured(folder: Path) -> dict[tuple, Row]:
    return {merge.key(row): row for row in Report.load(folder / session.RESULT).rows}


@needs_triton
def test_what_was_measured_before_a_kill_is_in_the_file(tmp_path):
    process = rehearsing(tmp_path / "out", "--stages", "timing")
    said = interrupted(process, tmp_path / "out", signal.SIGKILL, rows=2)
    rows = measured(tmp_path / "out")
    # A row may have been logged while the row before was being written.
    assert 2 <= len(rows) <= len(said) <= len(rows) + 2
    assert Report.load(tmp_path / "out" / session.RESULT).rehearsal
    log = tmp_path / "out" / session.LOG
    before = log.stat().st_size
    time.sleep(0.5)
    assert log.stat().st_size == before  # its processes have ended with it


@needs_triton
@pytest.mark.heavy
@pytest.mark.parametrize(
    ("number", "before"),
    (
        (signal.SIGKILL, ()),
        pytest.param(signal.SIGTERM, ("--stages", "timing"), marks=pytest.mark.exhaustive),
    ),
)
def test_a_rehearsal_cut_short_goes_on_where_it_was(number, before, tmp_path):
    folder = tmp_path / "out"
    process = rehearsing(folder, *before)
    interrupted(process, folder, number, rows=9)
    half = measured(folder)
    assert 9 <= len(half) < 24
    again = rehearsing(folder)
    said, _ = again.communicate(timeout=150)
    assert again.returncode == 0, said
    whole, report = measured(folder), Report.load(folder / session.RESULT)
    assert len(whole) == 3 * len(cases.planned(rehearsal=True)) and report.complete and not report.left_out
    finished = {key for key in half if {(*key[:-1], name) in half for name in cases.REHEARSED} == {True}}
    assert finished and all(whole[key] == half[key] for key in finished)  # nothing was measured twice
    assert {name for name, stage in report.stages.items() if not stage.done} == {"clusters", "graphs", "host"}
    (tests,) = report.tests.values()
    assert tests.passed > 5 and not tests.failed and not tests.words
    assert [set(model["seconds"]) for model in report.models] == [{BASELINE, AA, "seqcells swap"}] * 2


# Order, time and the file.


def test_cases_measured_before_an_end_speak_for_all():
    """The first 12 cases have both cells and two dtypes; the first 42 have each cell in each dtype for every suite."""
    planned = cases.planned(rehearsal=False)
    assert {(case.cell_name, case.dtype_name) for case in planned[:12]} == {("lstm", "bfloat16"), ("gru", "tf32")}
    assert {case.suite_name for case in planned[:7]} == set(cases.SETS["minutes"])
    assert len({(case.suite_name, case.cell_name, case.dtype_name) for case in planned[:42]}) == 42


def test_the_named_set():
    planned = cases.planned(rehearsal=False)
    assert len(set(planned)) == len(planned)
    assert {case.dtype_name for case in planned} == {"tf32", "bfloat16", "float16"}
    there = {(case.suite_name, *case.shape) for case in planned}
    for sizes in ((1, 128, 256), (64, 1024, 512), (8, 2048, 256), (32, 256, 1), (32, 256, 64)):
        assert {("sequence", *sizes), ("training", *sizes)} <= there
    assert {("stacked", 32, 256, 300), ("packed", 32, 256, 200), ("streaming", 1, 64, 16)} <= there


class Drifting:
    """Replaces a GPU's timer: torch.nn differs from itself the first times that a case is measured."""

    def __init__(self, providers, effort, graphs):
        self.providers = {provider.name: provider for provider in providers}

    def __enter__(self):
        return self

    def __exit__(self, *_): ...

    seen: dict[Case, int] = {}

    def measure(self, case):
        self.seen[case] = self.seen.get(case, 0) + 1
        off = 1.2 if self.seen[case] < 3 and case.cell_name == "lstm" else 1.01
        for name, seconds in ((BASELINE, 1.0), (AA, off), (OURS, 0.5)):
            if name in self.providers:
                yield Outcome(name, name == OURS, error=0.0, figures=[seconds] * 3)


def test_a_case_comes_again_until_torch_nn_agrees_with_itself(monkeypatch):
    monkeypatch.setattr(time_cases, "Events", Drifting)
    monkeypatch.setattr(Drifting, "seen", {})
    planned = cases.planned(rehearsal=False)
    chosen = [k for k, case in enumerate(planned) if case.suite_name == "sequence"][:4]
    events = list(time_cases.timed(chosen, 1e6, "commit", rehearsal=False, graphs=False))
    begun = [event["begin"] for event in events if "begin" in event]
    lstm = [k for k in chosen if planned[k].cell_name == "lstm"]
    assert lstm and begun == chosen + lstm + lstm  # after all other cases
    rows = []
    for event in events:
        if "row" in event:
            merge.put(rows, schema.read(Row, event["row"], "row"))
    assert len(rows) == 3 * len(chosen)
    assert all(merge.distance(each) <= 0.03 and each.origin.baseline == 1.0 for each in rows)


def open_session(folder: Path, monkeypatch, *rows: Row) -> session.Session:
    """A session on a machine that has a GPU, as far as the file says."""
    monkeypatch.setattr(session.run, "start", lambda *_: report(date=LATE))
    monkeypatch.setattr(session.machine, "commit", lambda: "commit")
    if rows:
        report(*rows).save(folder / session.RESULT)
    return session.Session(folder, 600.0, rehearsal=False, cores=2)


def test_a_session_goes_on_with_what_is_missing_changed_or_doubtful(tmp_path, monkeypatch):
    planned = cases.planned(rehearsal=False)
    of_case = {}
    for index, name in enumerate(("done", "changed", "doubtful", "older", "half")):
        case = planned[index]
        sizes = {"suite": case.suite_name, "cell": case.cell_name, "dtype": case.dtype_name, "device": "cuda"}
        sizes |= dict(zip(("batch", "hidden", "steps"), case.shape, strict=True))
        names = [provider.name for provider in cases.providers(case, False)]
        rows = [row(each, **sizes) for each in (names[:3] if name == "half" else names)]
        for each in rows:
            each.origin.aa = 1.05 if name == "doubtful" else 1.0
            each.origin.commit = "another" if name == "older" else "commit"
        of_case[name] = rows
    opened = open_session(tmp_path, monkeypatch, *(each for rows in of_case.values() for each in rows))
    opened.codes = {(index, OURS): "b" if index == 1 else "a" for index in range(5)}
    left = stages.waiting(opened)
    assert left[:3] == [1, 2, 4] and left[-1] == 3 and 0 not in left
    assert sorted(left) == [*range(1, len(planned))]


def test_a_folder_of_another_machine_is_not_continued(tmp_path, monkeypatch):
    report(row(AA), machine={"gpu": "two"}).save(tmp_path / session.RESULT)
    with pytest.raises(ValueError, match="another machine"):
        open_session(tmp_path, monkeypatch)


@pytest.mark.parametrize("lost", (False, True))
def test_whoever_takes_the_process_down_is_named_and_the_others_are_measured(lost, tmp_path, monkeypatch):
    """A process dies at our row of the second case, or reports a lost context there. Another process continues with the
    third case."""
    opened = open_session(tmp_path, monkeypatch)
    planned, asked = cases.planned(rehearsal=False), []

    def events(name, within, chosen, **given):
        asked.append(list(chosen))
        for index in chosen:
            yield {"begin": index}
            sizes = dict(zip(("batch", "hidden", "steps"), planned[index].shape, strict=True))
            sizes |= {"cell": planned[index].cell_name, "dtype": planned[index].dtype_name}
            sizes["suite"] = planned[index].suite_name
            for provider in (AA, BASELINE) if index == 1 else (AA, BASELINE, OURS):
                yield {"case": index, "row": dataclasses.asdict(row(provider, **sizes))}
            if index == 1:
                yield from [{"lost": 1}, {"ended": 0}] if lost else [{"ended": -11}]
                return
        yield {"left": {}}
        yield {"ended": 0}

    monkeypatch.setattr(opened, "events", events)
    monkeypatch.setattr(stages, "waiting", lambda _: [0, 1, 2])
    assert stages.timing(opened, 60.0) == (True, "3 of 3 cases; in 0 torch.nn differs from itself by more than 3%")
    assert asked == [[0, 1, 2], [2]]
    wrong = [each for each in Report.load(opened.path).rows if each.status == "failed"]
    if lost:  # its process has reported the failed row
        assert wrong == []
        return
    failed = only(wrong)
    assert run.case_of(failed) == planned[1] and failed.provider == OURS
    assert failed.reason == "its process ended with code -11"


def test_a_stage_that_fails_does_not_keep_the_others(tmp_path, monkeypatch):
    opened = open_session(tmp_path, monkeypatch)

    def broken(*_):
        raise RuntimeError("no such thing")

    planned = [stages.Planned("one", broken, 1.0, 1), stages.Planned("two", lambda *_: (True, "fine"), 1.0, 1)]
    monkeypatch.setattr(stages, "STAGES", [*planned, planned[1]._replace(name="three", least=1e6)])
    stages.run(opened, ["one", "two", "three"], 600.0)
    found = {name: (stage.done, stage.words) for name, stage in Report.load(opened.path).stages.items()}
    assert found["one"] == (False, "RuntimeError: no such thing") and found["two"] == (True, "fine")
    assert not found["three"][0] and found["three"][1].startswith("out of time")


# Processes.


def test_processes_run_side_by_side_and_none_outlives_its_time(tmp_path):
    say = [sys.executable, "-S", "-c", "import sys, time; print('here', flush=True); time.sleep(float(sys.argv[1]))"]
    commands = {"short": [*say, "0"], "long": [*say, "60"], "third": [*say, "60"], "fourth": [*say, "0"]}
    began = time.monotonic()
    heard = list(children.run(commands, 2, 1.0, tmp_path / "log", {}))
    assert time.monotonic() - began < 10
    ends = {each.name: each.code for each in heard if each.line is None}
    assert ends == {"short": 0, "long": None, "third": None, "fourth": None}
    assert {each.name for each in heard if each.line == "here"} == {"short", "long", "third"}
    assert "long: here\n" in (tmp_path / "log").read_text()


# The tests' stage.

SAID = """
tests/test_a.py::test_one PASSED                                         [ 25%]
tests/test_a.py::test_two[x-y z] FAILED                                  [ 50%]
tests/test_a.py::test_three SKIPPED (no GPU here)                        [ 75%]
FAILED tests/test_a.py::test_two[x-y z] - assert 1 == 2
"""


def heard(text: str, code: int | None) -> tuple[schema.TestFile, list[str]]:
    outcomes = pytest_runs.Outcomes("tests/test_a.py", "commit")
    told = [name for line in text.splitlines() if (name := outcomes.hear(line))]
    return outcomes.end(code, 2.0), told


def test_a_failure_is_told_once_and_at_once():
    found, told = heard(SAID, 1)
    assert told == found.failed == ["tests/test_a.py::test_two[x-y z]"]
    assert (found.passed, found.skipped, found.words) == (1, 1, "")


@pytest.mark.parametrize(
    ("text", "code", "words"),
    (
        ("E   ModuleNotFoundError: No module named 'hypothesis'", 2, "not run: it needs hypothesis"),
        ("", None, "not begun: the time was over"),
        (SAID, None, "stopped: the time was over"),
        (SAID, -11, "its process ended with code -11"),
        ("", 5, ""),
    ),
)
def test_a_file_without_an_end_says_why(text, code, words):
    assert heard(text, code)[0].words.startswith(words) and bool(words) == bool(heard(text, code)[0].words)


def test_files_that_failed_come_first_and_those_that_are_through_not_again():
    known = {
        "tests/test_cpu.py": schema.TestFile("commit", 5.0, passed=3),
        "tests/test_ops.py": schema.TestFile("commit", 5.0, words="stopped: the time was over"),
        "tests/test_cells.py": schema.TestFile("another", 50.0, passed=3),
        "tests/test_cache.py": schema.TestFile("another", 5.0, failed=["tests/test_cache.py::test_a"]),
    }
    found = pytest_runs.files(False, known, "commit")
    assert found[:3] == ["tests/test_cache.py", "tests/test_cells.py", "tests/test_ops.py"]
    assert "tests/test_cpu.py" not in found and "tests/test_triton_cuda.py" in found
