"""Measuring this machine: which points are measured, in which order, and that the table is kept and then used."""

from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch

import seqcells
from seqcells import tune
from seqcells.kernels import cpu
from seqcells.measured import estimates
from seqcells.measured.table import KERNELS, Point, Table
from seqcells.system import machine

needs_engine = pytest.mark.skipif(cpu.why_not_available() is not None, reason="the CPU engine is not built")


def test_the_grid_is_measured_once_and_the_most_telling_points_first():
    grid = tune.GRIDS["cpu"]
    wanted = list(grid.points())
    assert len({*wanted}) == len(wanted) == 2 * 2 * 3 * 2 * 4 * 4
    assert [point.dtype for point in wanted] == ["float32"] * 192 + ["bfloat16"] * 192
    for first in (wanted, wanted[192:]):
        coarse = first[: 12 * len(grid.coarse)]
        assert [point[-2:] for point in coarse[::12]] == grid.coarse
        assert len({(*point.kind, point.steps) for point in coarse[:12]}) == 12


def test_on_a_gpu_the_corners_of_every_dtype_come_before_what_lies_between():
    grid = tune.GRIDS["cuda"]
    wanted = list(grid.points())
    kinds = 2 * 2 * 5
    assert len({*wanted}) == len(wanted) == 4 * kinds * 4 * 4
    corners = wanted[: 4 * kinds * 4]
    assert {point[-2:] for point in corners} == {(1, 256), (64, 256), (1, 1024), (64, 1024)}
    for first, dtype in zip(range(0, len(corners), 4 * kinds), ("tf32", "bfloat16", "float16", "float32"), strict=True):
        of_dtype = corners[first : first + 4 * kinds]
        assert {point.dtype for point in of_dtype} == {dtype}
        assert {point.form for point in of_dtype[:kinds]} == {"layers", "packed", "step"}


class Clock:
    """A clock that advances only when a call runs or waits."""

    def __init__(self, monkeypatch):
        self.now, self.log = 0.0, []
        monkeypatch.setattr(tune.time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(tune.time, "sleep", self.pass_by)

    def pass_by(self, seconds):
        self.now += seconds

    def run(self, name, *seconds):
        """A call that takes these seconds in order, and then the last value forever."""
        left = list(seconds)

        def run():
            self.log.append(name)
            self.pass_by(left.pop(0) if len(left) > 1 else left[0])

        return run


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def test_backends_take_turns_and_the_first_call_of_a_turn_does_not_count(clock):
    slow_at_first = clock.run("b", 9.0, 9.0, *[0.004, 9.0] * 2, 0.004)
    found = tune.timed({"torch": clock.run("a", 0.0009), "cpu": slow_at_first})
    assert found == {"torch": pytest.approx(0.0009), "cpu": pytest.approx(0.004)}
    assert "".join(clock.log) == "aaabbb" + "aaaaaabb" * 2


def test_long_calls_are_made_few_times(clock):
    assert tune.timed({"torch": clock.run("a", 1.0), "cpu": clock.run("b", 2.0)})["cpu"] == pytest.approx(2.0)
    assert "".join(clock.log) == "aaabbb" + "aabb" * 2


def test_a_device_is_waited_for_after_some_calls_and_that_counts(clock):
    """Like a GPU: calls return at once, and their work takes time afterwards."""
    given = []

    def synchronize():
        clock.pass_by(0.003 * len(given))
        given.clear()

    def run(host):
        def run():
            clock.pass_by(host)
            given.append(host)

        return run

    found = tune.timed({"torch": run(0.0), "triton": run(0.002)}, synchronize)
    assert found == {"torch": pytest.approx(0.003), "triton": pytest.approx(0.005)}


def test_who_fails_to_compile_has_no_seconds(clock):
    def fails():
        raise ValueError("a compiler's")

    found = tune.timed({"torch": clock.run("a", 0.25), "triton": fails}, lambda: None)
    assert found == {"torch": pytest.approx(0.25), "triton": None}
    with pytest.raises(ValueError, match="a compiler's"):
        tune.timed({"torch": clock.run("a", 0.25), "cpu": fails})


def test_who_cannot_run_has_no_seconds(clock):
    def fails():
        raise RuntimeError("could not create a primitive")

    assert tune.timed({"torch": fails, "cpu": clock.run("b", 0.25)}) == {"torch": None, "cpu": pytest.approx(0.25)}
    assert tune.timed({"torch": fails, "cpu": fails}) == {"torch": None, "cpu": None}


@pytest.fixture
def quick(monkeypatch, clock):
    """Pretend that each point takes a second, and that our call takes half as long as torch's."""

    def timed(runs, synchronize):
        clock.pass_by(1.0)
        return {name: 0.5 if name == "torch" else 0.25 for name in runs}

    monkeypatch.setattr(tune, "timed", timed)
    monkeypatch.setattr(cpu, "why_not_available", lambda: None)


def kept():
    return sorted(estimates.own_folder().glob("*"))


def test_a_table_is_kept_told_of_and_used(quick, tables, capsys):
    tune.main(["--seconds", "7"])
    (path,) = kept()
    assert path.name == "avx2-l2-512k-1t.json"
    measured = Table.load(path)
    assert [*measured.points] == list(islice(tune.GRIDS["cpu"].points(), 7)) and not measured.complete
    assert measured.threads == torch.get_num_threads() and measured.processor == machine.processor()
    assert measured.versions["torch"] == torch.__version__
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == "float32 inference lstm layers B1 H128 T32: torch 500000.0 µs, cpu 250000.0 µs"
    assert lines[-2] == "out of time after 7 of 384 points" and lines[-1].endswith(str(path))
    assert estimates.here().points == measured.points
    with torch.no_grad():
        choice = estimates.leader(_call())
    assert choice.backend == "cpu" and "own table avx2-l2-512k-1t" in choice.reason


def _call():
    layer = seqcells.LSTM(4, 128)
    return seqcells.functional.call_of(layer.cell, "layers", torch.zeros(32, 1, 4), layer._weights()[0])


def test_a_whole_grid_is_complete(quick, tables):
    tune.main(["--seconds", "1000"])
    assert Table.load(kept()[0]).complete


def test_a_table_may_be_written_elsewhere(quick, tables, tmp_path, capsys):
    path = tmp_path / "deep" / "mine.json"
    tune.main(["--seconds", "2", "--json", str(path)])
    assert len(Table.load(path).points) == 2 and not kept() and str(path) in capsys.readouterr().out


def test_a_dry_run_measures_and_writes_nothing(tables, monkeypatch, capsys):
    monkeypatch.setattr(tune, "timed", None)
    monkeypatch.setattr(cpu, "why_not_available", lambda: None)
    tune.main(["--dry-run"])
    lines = capsys.readouterr().out.splitlines()
    assert "class avx2-l2-512k" in lines[0] and str(estimates.own_folder()) in lines[1] and len(lines) == 2 + 384
    assert not kept()


def test_what_cannot_be_done_is_said(quick, tables, tmp_path, monkeypatch, capsys):
    for arguments, words in (
        (["--seconds", "0"], "--seconds must be more than zero"),
        (["--from-results", "x.json"], "--from-results needs --json"),
    ):
        with pytest.raises(SystemExit):
            tune.main(arguments)
        assert words in capsys.readouterr().err
    with pytest.raises(SystemExit, match=r"missing\.json"):
        tune.main(["--from-results", str(tmp_path / "missing.json"), "--json", str(tmp_path / "x.json")])
    (tmp_path / "taken").write_text("")
    monkeypatch.setenv("SEQCELLS_CACHE", str(tmp_path / "taken"))
    with pytest.raises(SystemExit, match="set SEQCELLS_CACHE"):
        tune.main(["--seconds", "1"])
    monkeypatch.setattr(cpu, "why_not_available", lambda: "its extension is not built")
    with pytest.raises(SystemExit, match="its extension is not built"):
        tune.main([])


def test_two_do_not_measure_at_once(quick, tables):
    with tune.cache.lock("tune", timeout=0), pytest.raises(SystemExit, match=r"another process holds .*tune\.lock"):
        tune.main(["--seconds", "1"])


RESULTS = Path(seqcells.__file__).parents[1] / "benchmarks" / "results"


SHIPPED = [path for path in sorted(estimates.SHIPPED.glob("*.json")) if Table.load(path).source != "seqcells.tune"]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_tables_of_results_are_what_the_results_say(path, tables, tmp_path):
    """All points, except those marked with another origin, which stay unchanged."""
    shipped, made = Table.load(path), tmp_path / path.name
    if shipped.origins:
        points = {point: shipped.points[point] for point in shipped.origin_of}
        made.write_text(replace(shipped, points=points, date="", commit="", source="").to_json())
    tune.main(["--from-results", str(RESULTS / shipped.source), "--json", str(made)])
    assert made.read_text() == path.read_text()


def test_points_of_results_are_not_put_beside_those_of_another_machine(tables, tmp_path):
    cuda, cpu = sorted(SHIPPED)[-1], sorted(SHIPPED)[0]
    taken = tmp_path / "taken.json"
    taken.write_text(cuda.read_text())
    with pytest.raises(SystemExit, match="a table of cuda-h200-132sm is no place for points of amxbf16-l2-unknown"):
        tune.main(["--from-results", str(RESULTS / Table.load(cpu).source), "--json", str(taken)])
    assert taken.read_text() == cuda.read_text()


@needs_engine
@pytest.mark.parametrize("training", (False, True))
@pytest.mark.parametrize("form", ("layers", "packed", "step"))
@pytest.mark.parametrize("cell", tune.MODULES)
def test_every_kind_of_call_can_be_made(cell, form, training):
    kinds = ((3, "torch"), (3, "cpu")) if form == "packed" else ((1, "torch"), (1, "cpu"))
    for steps, backend in (*kinds, *([(3, "cpu")] if form == "layers" else [])):
        found = tune.runner(Point(cell, form, training, "float32", steps, 2, 8), backend)()
        tensors = torch.utils._pytree.tree_leaves(found)
        if form == "packed" and not training:  # two sequences, with three steps and one step
            assert tensors[0].shape == (4, 8) and tensors[1].tolist() == [2, 1, 1]
            del tensors[1:4]
        assert len(tensors) == (5 if training else (2 if cell == "lstm" else 1) + (form != "step"))
        assert all(tensor.isfinite().all() for tensor in tensors)


@needs_engine
@pytest.mark.heavy
def test_a_run_in_earnest(device, tmp_path, monkeypatch):
    monkeypatch.setenv("SEQCELLS_CACHE", str(tmp_path))
    small = tune.GRIDS[device]._replace(rows=(1, 4), hidden=(8, 16), coarse=[(1, 8)])
    monkeypatch.setitem(tune.GRIDS, device, small)
    where, ours = torch.device(device), KERNELS[device]
    try:
        tune.main(["--seconds", "20", "--device", device])
        table = estimates.here(where)
        assert table is not None and all(p.hidden <= 16 and s[ours] > 0 for p, s in table.points.items())
        assert table.name in seqcells.GRU(8, 8, device=where).plan(torch.zeros(32, 1, 8, device=where)).reason
    finally:
        monkeypatch.undo()
        estimates.reload()
