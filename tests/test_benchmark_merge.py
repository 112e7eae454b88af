"""Several runs of a GPU in one file: halves merge to the whole, and rows know their code."""

import copy
import json
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path

import pytest
from session_rows import EARLY, LATE, OURS, only, report, row

from benchmarks import schema
from benchmarks.case import Case
from benchmarks.gpu import __main__ as command
from benchmarks.gpu import merge
from benchmarks.providers import AA, BASELINE
from benchmarks.schema import Figure, Report
from benchmarks.shapes import Shape

needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")

MERGED = {
    "the one of the newer code": (row(code="a", aa=1.0, date=EARLY), row(code="b", aa=1.2, date=LATE), 1),
    "of one code the one whose torch.nn was level": (row(aa=0.99, date=EARLY), row(aa=1.05, date=LATE), 0),
    "of two level ones the newer": (row(aa=1.0, date=EARLY), row(aa=0.98, date=LATE), 1),
    "of two doubtful ones the nearer": (row(aa=1.05, date=EARLY), row(aa=1.2, date=LATE), 0),
    "a figure rather than none of the same code": (
        row(date=EARLY),
        row(date=LATE, status="failed", reason="lost", figure=None),
        0,
    ),
    "none, of another code": (row(date=EARLY), row(code="b", date=LATE, status="failed", reason="?", figure=None), 1),
    "a figure rather than an absence": (
        row(date=EARLY),
        row(code=None, date=LATE, status="unavailable", reason="not installed", figure=None),
        0,
    ),
}


@pytest.mark.parametrize("name", MERGED)
@pytest.mark.parametrize("swapped", (False, True))
def test_of_two_rows_of_one_thing_stands(name, swapped):
    *two, right = MERGED[name]
    rows = []
    for each in reversed(two) if swapped else two:
        merge.put(rows, copy.deepcopy(each))
    assert only(rows) == two[right]


def test_a_replayed_graph_is_kept_beside_the_better_figure():
    graph = Figure(0.5, 0.5, 0.5, 5)
    rows = [row(aa=1.0, date=EARLY)]
    merge.put(rows, row(aa=1.05, date=LATE, graph=graph))
    assert only(rows).origin.date == EARLY and only(rows).graph == graph


def test_two_halves_merge_to_the_whole(tmp_path):
    """Each row keeps torch.nn's value of its own run, so ratios are within that run."""
    first = report(row(AA, value=2.0), row(BASELINE, value=2.0), row(value=1.0), date=EARLY)
    other = [row(AA, value=4.0, hidden=9), row(BASELINE, value=4.0, hidden=9), row(value=1.0, hidden=9)]
    for each in other:
        each.origin.baseline, each.origin.date = 4.0, LATE
    # Our row of the first case again, with other code, in a run where torch.nn took twice as long.
    changed = row(code="b", value=1.0, date=LATE, aa=1.2)
    changed.origin.baseline = 4.0
    second = report(changed, *other, date=LATE)
    second.tests = {"tests/test_a.py": schema.TestFile("commit", 1.0, failed=["tests/test_a.py::test_b"])}
    for name, each in (("a", first), ("b", second)):
        each.save(tmp_path / name)
    into = tmp_path / "c"
    assert command.main(["--merge", str(tmp_path / "a"), str(tmp_path / "b"), "--into", str(into)]) == 0
    whole = Report.load(into)
    ratios = {(each.hidden, each.provider): each.ratio for each in whole.rows}
    assert ratios == {(8, AA): 1, (8, BASELINE): 1, (8, OURS): 4, (9, AA): 1, (9, BASELINE): 1, (9, OURS): 4}
    assert whole.tests == second.tests and whole.date == LATE
    # Merging again into the existing file, in another order, gives the same file.
    assert command.main(["--merge", str(tmp_path / "b"), str(tmp_path / "a"), "--into", str(into)]) == 0
    assert Report.load(into) == whole


def test_a_rival_of_another_run_is_compared_by_torch_nn(tmp_path):
    """The rival took half of torch.nn's time in its run, and ours a quarter in its run, so ours takes half of the
    rival's."""
    rival = row("torchrl triton", value=10.0, ours=False)
    rival.origin.baseline = 20.0
    ours = row(value=1.0)
    ours.origin.baseline = 4.0
    whole = report(ours, rival, row(AA, value=2.0))
    assert [each.ratio_to_rival for each in whole.rows][:2] == [2.0, 1.0]


@pytest.mark.parametrize(
    ("given", "words"),
    (({"machine": {"gpu": "two"}}, "several devices"), ({"rehearsal": True}, "a rehearsal and a measurement")),
)
def test_what_does_not_belong_together_is_not_merged(given, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        merge.merged([report(row(AA)), report(row(AA), **given)])


def test_rows_of_unknown_origin_are_not_merged():
    with pytest.raises(ValueError, match="which run they come from"):
        merge.merged([report(row(AA)), report(row(AA, origin=None), row(BASELINE, origin=None))])


def test_no_rehearsal_lands_among_the_results(tmp_path, capsys):
    report(row(AA), rehearsal=True).save(tmp_path / "a")
    into = command.RESULTS / "rehearsal.json"
    assert command.main(["--merge", str(tmp_path / "a"), "--into", str(into)]) == 2 and not into.exists()
    assert "does not belong" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        command.main(["--rehearse", "--out", str(command.RESULTS / "rehearsal")])
    assert not (command.RESULTS / "rehearsal").exists()


# The code of a row.

KERNEL = """
import triton
import triton.language as tl


@triton.jit
def {name}(source, target, FACTOR: tl.constexpr):
    place = tl.arange(0, 128)
    tl.store(target + place, tl.load(source + place) * FACTOR)
"""


def fingerprints(sources: list[tuple[str, str, int]], folder: Path) -> list[str]:
    """Fingerprints of kernels compiled for Hopper, given as source, name and factor."""
    import importlib.util

    import triton
    from triton.compiler import ASTSource

    from benchmarks.gpu.code_digest import fingerprint
    from benchmarks.resources.launches import TARGETS

    found = []
    for number, (source, name, factor) in enumerate(sources):
        path = folder / f"kernels_{number}.py"
        path.write_text(source)
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        signature = {"source": "*fp32", "target": "*fp32", "FACTOR": "constexpr"}
        made = ASTSource(getattr(module, name), signature, {(2,): factor})
        compiled = triton.compile(made, target=TARGETS["sm_90"].gpu)
        found.append(fingerprint(compiled, (1, 1, 1)))
        if number == 0:
            found.append(fingerprint(compiled, (2, 1, 1)))
    return found


@needs_triton
def test_a_new_name_changes_no_code_and_another_constant_does(tmp_path, monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    plain, renamed = KERNEL.format(name="scale"), "\n# and a line more\n" + KERNEL.format(name="a_longer_name")
    sources = [(plain, "scale", 3), (renamed, "a_longer_name", 3), (plain, "scale", 5)]
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        first, of_a_larger_grid, of_another_name, of_another_constant = pool.submit(
            fingerprints, sources, tmp_path
        ).result()
    assert first == of_another_name
    assert len({first, of_a_larger_grid, of_another_constant}) == 3


def test_code_is_of_the_libraries_too():
    """The code of torch.nn's rows is the libraries alone."""
    from benchmarks.gpu import code_digest
    from benchmarks.providers import PROVIDERS

    case = Case("sequence", "lstm", Shape(2, 4, 3))

    def code_of(name):
        provider = code_digest.Watched(PROVIDERS[name])
        provider.prepare(case, case.weights(), case.inputs(case.weights()))
        return provider.code

    first = code_of(BASELINE)
    assert first == code_of(AA)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(code_digest, "libraries", lambda *_: {"torch": "another"})
        assert code_of(BASELINE) != first


def test_the_result_file_is_read_as_it_was_written(tmp_path):
    made = report(row(AA), tests={"tests/test_a.py": schema.TestFile("commit", 1.0, failed=["x"])}, rehearsal=True)
    made.models = [{"model": "one", "seconds": {BASELINE: 1.0}}]
    made.save(tmp_path / "file")
    assert Report.load(tmp_path / "file") == made
    assert json.loads((tmp_path / "file").read_text())["rows"][0]["origin"]["code"] == "a"
