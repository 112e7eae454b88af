"""The host's work for one call is counted, kind by kind, and must not grow unnoticed; no GPU is needed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import result_files
from benchmarks.host.calls import CELLS, KINDS, STUB
from benchmarks.host.report import Report
from seqcells.kernels import cpu, triton

ROOT = Path(__file__).parents[1]
CPU, TRITON = "seqcells cpu", "seqcells triton"

# Operators, allocations and launches of a call. The engines' numbers are measured, the stub's are counted by hand. The
# stub has two results for a layer, and the states for a cell. In training it adds the gradients of the input, four
# weights, and a cell's states.
COUNTS = {
    ("layer inference", "lstm"): {CPU: (3, 3, 1), TRITON: (5, 5, 1), STUB: (2, 2, 0)},
    ("layer inference", "gru"): {CPU: (2, 2, 1), TRITON: (4, 4, 1), STUB: (2, 2, 0)},
    ("layer training", "lstm"): {CPU: (9, 9, 2), TRITON: (15, 13, 2), STUB: (2 + 5, 7, 0)},
    ("layer training", "gru"): {CPU: (8, 8, 2), TRITON: (15, 13, 2), STUB: (2 + 5, 7, 0)},
    ("cell inference", "lstm"): {CPU: (2, 2, 1), TRITON: (2, 2, 1), STUB: (2, 2, 0)},
    ("cell inference", "gru"): {CPU: (1, 1, 1), TRITON: (1, 1, 1), STUB: (1, 1, 0)},
    ("cell training", "lstm"): {CPU: (10, 10, 2), TRITON: (13, 12, 2), STUB: (2 + 7, 9, 0)},
    ("cell training", "gru"): {CPU: (8, 8, 2), TRITON: (12, 11, 2), STUB: (1 + 6, 7, 0)},
    ("stream step", "lstm"): {CPU: (0, 0, 1), TRITON: (0, 0, 1), STUB: (2, 2, 0)},
    ("stream step", "gru"): {CPU: (0, 0, 1), TRITON: (0, 0, 1), STUB: (2, 2, 0)},
}
# Kinds of calls that take more operators than their limit.
ABOVE: dict[str, set[str]] = {}


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The whole suite, as on a machine without a GPU."""
    path = tmp_path_factory.mktemp("host") / "host.json"
    command = [sys.executable, "-m", "benchmarks.host", "--samples", "1", "--json", str(path)]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "TRITON_INTERPRET": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return Report.load(path)


ENGINES = {CPU: cpu.why_not_available() is None, TRITON: triton.INSTALLED}


@pytest.mark.parametrize("kind", [kind.name for kind in KINDS])
@pytest.mark.parametrize("cell", CELLS)
def test_a_call_takes_no_more_than_it_took(report, kind, cell):
    expected = {name: counts for name, counts in COUNTS[kind, cell].items() if ENGINES.get(name, True)}
    found = {row.provider: row for row in report.rows if (row.kind, row.cell) == (kind, cell)}
    assert {
        name: (found[name].operators, found[name].allocations, found[name].launches) for name in expected
    } == expected
    assert all(sum(row.by_name.values()) == row.operators for row in found.values())


def test_prepared_calls_keep_to_the_limit(report):
    limits = {kind.name: kind.limit for kind in KINDS}
    for name in (name for name, there in ENGINES.items() if there):
        above = {row.kind for row in report.rows if row.provider == name and row.operators > limits[row.kind]}
        assert above == ABOVE.get(name, set())


def test_all_are_timed_beside_the_stub(report):
    assert report.complete and report.absent
    for row in report.rows:
        (stub,) = [r for r in report.rows if r.provider == STUB and (r.kind, r.cell) == (row.kind, row.cell)]
        assert row.figure.median > 0 and row.to_stub == row.figure.median / stub.figure.median
        assert (row.with_kernels is not None) == (row.provider == CPU)


def test_results_of_the_host_are_read_and_are_none_of_the_benchmarks_own():
    kept = sorted(result_files.RESULTS.glob(f"{result_files.HOST}-*.json"))
    assert kept and not {*kept} & {*result_files.reports()}
    for path in kept:
        read = Report.load(path)
        assert read.complete and {(row.kind, row.cell) for row in read.rows} == {*COUNTS}
