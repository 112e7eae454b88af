"""Choices by tables of measured seconds: a table's estimates, which table counts, and the choice without a table."""

import json
import math
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch

from seqcells import tune
from seqcells.cells import REGISTRY
from seqcells.measured import estimates, results
from seqcells.measured.table import Point, Table
from seqcells.request.call import Call
from seqcells.system import machine

ROWS, HIDDEN = (1, 16, 64), (64, 256)
HEAD = {"processor": "a processor", "threads": 1, "versions": {"torch": "2.13.0"}, "date": "2026-11-26T19:10:34Z"}
HEAD |= {"commit": "unknown", "source": "a test", "complete": True}
CPU = torch.device("cpu")


def table(ours=1.0, name="one", machine_class="avx2-l2-512k", wanted=lambda point: True, **others):
    """A table: torch's operator takes `theirs`, and ours ``ours`` times as long."""
    kinds = product(("lstm", "gru"), (("layers", 32), ("layers", 1), ("step", 1)), (False, True))
    points = {}
    for (cell, (form, steps), training), rows, hidden in product(kinds, ROWS, HIDDEN):
        point = Point(cell, form, training, "float32", steps, rows, hidden)
        if wanted(point):
            points[point] = {"torch": theirs(point), "cpu": theirs(point) * ours}
    return Table(machine_class=machine_class, name=name, points=points, **{**HEAD, **others})


def theirs(point):
    return 1e-6 * (7 + point.steps * point.rows**0.5 * point.hidden)


def call(steps=32, rows=16, hidden=64, cell="lstm", form="layers", dtype=torch.float32, **more):
    return Call(REGISTRY[cell], form, CPU, dtype, rows=rows, steps=steps, hidden=hidden, width=hidden, **more)


def chosen(training=False, **wanted):
    with torch.set_grad_enabled(training):
        return estimates.leader(call(**wanted))


# What a table says.


def test_seconds_are_exact_at_the_points():
    measured = table()
    for point, seconds in measured.points.items():
        found = call(point.steps, point.rows, point.hidden, point.cell, point.form)
        assert measured.seconds("torch", found, point.training) == pytest.approx(seconds["torch"], rel=1e-12)


@pytest.mark.parametrize("steps", (1, 32))
def test_between_points_logarithms_are_linear(steps):
    def at(rows, hidden):
        return table().seconds("torch", call(steps, rows, hidden), False)

    assert at(4, 64) == pytest.approx(math.sqrt(at(1, 64) * at(16, 64)))
    assert at(16, 128) == pytest.approx(math.sqrt(at(16, 64) * at(16, 256)))
    middle = math.prod(at(rows, hidden) for rows in (1, 16) for hidden in (64, 256)) ** 0.25
    assert at(4, 128) == pytest.approx(middle)
    assert at(16, 96) == pytest.approx(at(16, 64) * (at(16, 256) / at(16, 64)) ** (math.log(1.5) / math.log(4)))


def test_over_steps_seconds_are_a_line():
    measured = table()
    one, many = (measured.seconds("torch", call(steps), False) for steps in (1, 32))
    for steps in (2, 10, 31, 33, 200):
        assert measured.seconds("torch", call(steps), False) == pytest.approx(one + (many - one) * (steps - 1) / 31)


def test_one_number_of_steps_stands_for_any_but_single_steps_for_themselves():
    many, single = (table(wanted=lambda point, steps=steps: point.steps == steps) for steps in (32, 1))
    assert many.seconds("cpu", call(8), True) == pytest.approx(many.seconds("cpu", call(32), True) / 4)
    assert many.seconds("cpu", call(1), True) is None and single.seconds("cpu", call(8), True) is None
    assert single.seconds("cpu", call(1), True) and many.seconds("cpu", call(100), True)


def test_more_steps_never_take_less():
    measured = table()
    noisy = {p: dict.fromkeys(s, 1e-3 if p.steps == 1 else 5e-4) for p, s in measured.points.items()}
    again = replace(measured, points=noisy)
    found = [again.seconds("cpu", call(steps), False) for steps in (1, 16, 32, 1000)]
    assert found == pytest.approx([1e-3, 1e-3, 5e-4, 1e-3])


@pytest.mark.parametrize(
    ("rows", "hidden", "edge"), ((900, 64, (64, 64)), (1, 2048, (1, 256)), (1, 5, (1, 64))), ids=str
)
def test_beyond_the_points_the_nearest_edges_ratio_counts(rows, hidden, edge):
    slower = table(wanted=lambda point: point[-2:] != edge)
    points = slower.points | {Point("lstm", "layers", False, "float32", 32, *edge): {"torch": 0.25, "cpu": 0.75}}
    measured = replace(slower, points=points)
    torchs, ours = (measured.seconds(backend, call(32, rows, hidden), False) for backend in ("torch", "cpu"))
    assert ours / torchs == pytest.approx(3)
    more = max(1, rows * hidden**2 / (edge[0] * edge[1] ** 2))
    assert torchs == pytest.approx(0.25 * more)
    assert measured.seconds("cpu", call(32, rows, hidden), False, beyond=False) is None


def test_layers_and_directions_multiply():
    measured = table()
    one = measured.seconds("cpu", call(), False)
    assert measured.seconds("cpu", call(layers=3, directions=2), False) == pytest.approx(6 * one)


@pytest.mark.parametrize(
    "other",
    (
        {"cell": "rnn_tanh"},
        {"form": "step", "steps": 32},
        {"dtype": torch.bfloat16},
        {"rows": 0},
        {"steps": 0},
        {"options": ("packed",)},
        {"options": ("projection",)},
    ),
    ids=str,
)
def test_what_a_table_does_not_cover(other):
    assert table().seconds("torch", call(**other), False) is None


def test_a_table_that_was_cut_short_tells_of_what_it_has():
    coarse = table(
        wanted=lambda point: point.hidden == 256 and point.rows == 1 and point.cell == "lstm", complete=False
    )
    whole = table()
    for wanted in (call(32, 1, 256), call(7, 1, 256)):
        assert coarse.seconds("torch", wanted, False) == pytest.approx(whole.seconds("torch", wanted, False))
    assert coarse.seconds("torch", call(32, 64, 64), False) > 0
    assert coarse.seconds("torch", call(cell="gru"), False) is None


def test_points_are_lines_of_a_file_and_come_back(tmp_path):
    measured = table(ours=0.123456789)
    path = tmp_path / "one.json"
    path.write_text(measured.to_json())
    again = Table.load(path)
    assert again.name == "one" and again.points.keys() == measured.points.keys()
    assert all(again.points[p]["cpu"] == pytest.approx(s["cpu"], rel=1e-3) for p, s in measured.points.items())
    assert replace(again, points={}) == replace(measured, points={})
    assert sum('"hidden"' in line for line in path.read_text().splitlines()) == len(measured.points)


def broken():
    whole = json.loads(table().to_json())
    first = whole["points"][0]
    yield "no JSON", "{"
    yield "another schema", whole | {"schema": 99}
    yield "a list", []
    yield "no threads", {key: value for key, value in whole.items() if key != "threads"}
    yield "no thread", whole | {"threads": 0}
    yield "too much", whole | {"more": 1}
    yield "a point without rows", whole | {"points": [{k: v for k, v in first.items() if k != "rows"}]}
    yield "seconds that are negative", whole | {"points": [first | {"seconds": {"torch": -1.0, "cpu": 1.0}}]}
    yield "a backend is missing", whole | {"points": [first | {"seconds": {"torch": 1.0}}]}
    yield "words for sizes", whole | {"points": [first | {"hidden": "many"}]}


@pytest.mark.parametrize(("what", "content"), list(broken()), ids=lambda each: each if isinstance(each, str) else "")
def test_what_is_no_table_is_left_out_with_a_warning(what, content, tables):
    tables(own=[table(ours=2.0)])
    path = estimates.own_folder() / "another.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(ValueError, match=r"another\.json is no table of estimates: "):
        Table.load(path)
    estimates.reload()
    with pytest.warns(UserWarning, match=r"another\.json is no table .*seqcells\.tune"):
        assert estimates.here().name == "one"


# Which table counts.


def test_torchs_operator_must_lead_and_the_reason_names_both_estimates_and_the_table(tables):
    for ours, leader in ((0.5, "cpu"), (2.0, "torch"), (1.0, "cpu"), (1.02, "cpu"), (1.04, "torch")):
        tables(own=[table(ours)])
        choice = chosen()
        assert choice.backend == leader
        assert choice.reason == (
            f"estimated at {8.199 * ours:.3g} ms by our kernels and 8.2 ms by torch's operator, "
            "own table one of 2026-11-26"
        )


def test_own_tables_go_before_shipped_ones(tables):
    shipped = table(0.5, "shipped")
    tables(shipped=[shipped])
    assert chosen().backend == "cpu" and "shipped table shipped" in chosen().reason
    tables(own=[table(2.0, "mine")], shipped=[shipped])
    assert chosen().backend == "torch" and "own table mine" in chosen().reason
    tables(own=[table(2.0, "mine", machine_class="avx2-l2-1024k")], shipped=[shipped])
    assert chosen().backend == "cpu"


def test_the_nearest_number_of_threads_counts(tables):
    tables(own=[table(name="two", threads=2), table(name="sixteen", threads=16)])
    nearest = [estimates.of_class("avx2-l2-512k", threads) for threads in (1, 5, 6, 64)]
    assert [[table.name for table in tables] for tables in nearest] == [["two"]] * 2 + [["sixteen"]] * 2


def test_a_shipped_table_without_the_caches_size_is_nobodys(tables, monkeypatch):
    monkeypatch.setattr(machine, "caches", lambda: {"l1d": 0, "l2": 0, "l3": 0})
    # ours leads, by less than a similar machine's table must show
    unknown = table(0.97, machine_class="avx2-l2-unknown")
    tables(shipped=[unknown])
    assert estimates.here() is None and chosen().backend == "torch"
    tables(own=[unknown])
    assert estimates.here().name == "one" and chosen().backend == "cpu"


def test_training_is_another_kind(tables):
    slow = table(2.0)
    fast = {p: s if p.training else {"torch": 1.0, "cpu": 0.1} for p, s in slow.points.items()}
    tables(own=[replace(slow, points=fast)])
    assert chosen(training=False).backend == "cpu" and chosen(training=True).backend == "torch"


@pytest.mark.parametrize(("failing", "leader"), (("torch", "cpu"), ("cpu", "torch")))
def test_who_failed_when_it_was_measured_does_not_lead(failing, leader, tables):
    whole = table()
    tables(own=[replace(whole, points={p: s | {failing: None} for p, s in whole.points.items()})])
    choice = chosen()
    assert choice.backend == leader and "failed when it was measured, own table one" in choice.reason


def test_seconds_here(tables):
    assert estimates.seconds("cpu", call()) is None
    tables(own=[table(0.5)])
    with torch.no_grad():
        assert estimates.seconds("cpu", call()) == pytest.approx(estimates.seconds("torch", call()) / 2, rel=1e-3)
    with pytest.raises(ValueError, match="not of 'triton'"):
        estimates.seconds("triton", call())


def test_the_same_question_is_answered_once(tables, monkeypatch):
    tables(own=[table(0.5)])
    first = chosen()
    monkeypatch.setattr(Table, "seconds", None)
    assert chosen() is first


def test_symbols_of_a_traced_graph_have_no_size(tables):
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    tables(own=[table(0.5)])
    symbol = ShapeEnv().create_unbacked_symint()
    assert chosen(rows=symbol).backend == "torch" and chosen(rows=symbol, cell="gru").backend == "cpu"


# What counts without a table.


@pytest.mark.parametrize(("ratios", "leader"), (((0.5, 0.79), "cpu"), ((0.5, 0.81), "torch"), ((0.5,), "cpu")))
def test_without_a_table_ours_must_lead_by_far_in_every_other(ratios, leader, tables):
    tables(shipped=[table(ratio, f"other{ratio}", machine_class="avx512-l2-1024k") for ratio in ratios])
    choice = chosen()
    assert choice.backend == leader
    assert (
        f"no table of this machine covers it, and in those of others ours is at least {1 / max(ratios):.3g}"
        in choice.reason
    )


@pytest.mark.parametrize(("kin", "leader"), ((0.9, "cpu"), (1.0, "torch")))
def test_tables_of_the_same_instruction_set_count_alone(kin, leader, tables):
    alike = table(kin, "kin", machine_class="avx2-l2-unknown")
    tables(shipped=[alike, table(3.0, "other", machine_class="avx512-l2-1024k")])
    assert chosen().backend == leader


def test_other_machines_tables_do_not_speak_beyond_their_sizes(tables):
    tables(shipped=[table(0.5, machine_class="avx512-l2-1024k")])
    assert chosen(rows=65).backend == chosen(hidden=512).backend == "torch"
    assert "no table of measured seconds covers the call" in chosen(rows=65).reason


@pytest.mark.parametrize(
    ("wanted", "training", "leader"),
    (
        ({}, False, "torch"),
        ({}, True, "torch"),
        ({"cell": "gru"}, True, "cpu"),
        ({"cell": "rnn_relu"}, False, "cpu"),
        ({"dtype": torch.float64}, True, "cpu"),
        ({"options": ("packed",)}, True, "cpu"),
        ({"options": ("projection",)}, False, "cpu"),
        ({"dtype": torch.float16}, False, "torch"),
        ({"dtype": torch.float16, "cell": "gru"}, False, "cpu"),
        ({"steps": 1}, False, "cpu"),
        ({"steps": 1}, True, "torch"),
        ({"steps": 1, "form": "step", "cell": "gru"}, False, "cpu"),
        ({"steps": 1, "form": "step", "cell": "gru", "dtype": torch.float64}, True, "torch"),
        ({"steps": 1, "form": "stream"}, False, "cpu"),
        ({"rows": 0, "steps": 0, "hidden": 0}, False, "torch"),
    ),
    ids=str,
)
def test_without_any_table_what_torch_has_kernels_for_counts(wanted, training, leader, tables):
    choice = chosen(training, **wanted)
    assert choice.backend == leader and choice.reason


@pytest.mark.parametrize(("lacking", "leader"), ((True, "cpu"), (False, "torch")))
def test_bfloat16_without_a_unit_for_it(lacking, leader, tables, monkeypatch):
    """Tables of machines that have such a unit say nothing about a machine that lacks it."""
    whole = table(machine_class="amxbf16-l2-2048k")
    half = {point._replace(dtype="bfloat16"): seconds for point, seconds in whole.points.items()}
    tables(shipped=[replace(whole, points=half)])
    monkeypatch.setattr("seqcells.kernels.cpu.refusals.lacks_bfloat16_unit", lambda: lacking)
    assert chosen(dtype=torch.bfloat16).backend == leader


# The tables that come with the package, and where they come from.

SHIPPED = sorted(Path(estimates.__file__).with_name("tables").glob("*.json"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_tables(path):
    shipped = Table.load(path)
    assert path.name == tune.file_name(shipped.machine_class, shipped.threads)
    assert {point.cell for point in shipped.points} == {"lstm", "gru"}
    assert "-dirty" not in shipped.commit


def row(provider, seconds, suite="sequence", notes=(), status="ok"):
    figure = {"median": seconds} if status == "ok" else None
    sizes = {"batch": 4, "hidden": 64, "steps": 100, "cell": "lstm", "dtype": "float32"}
    return {"suite": suite, "provider": provider, "status": status, "notes": list(notes), "figure": figure, **sizes}


def result(rows, **machine):
    described = {"cpu": "a processor", "flags": ["avx2", "avx512f", "avx512_bf16"], "threads": 2, **machine}
    report = {"device": "cpu", "machine": described, "versions": {"python": "3.11", "torch": "2.13"}, "rows": rows}
    return report | {"date": "2026-11-26T19:10:34Z", "commit": "c76d452e5c", "complete": True}


ROWS_OF_RESULTS = [
    row("torch.nn", 3.0),
    row("seqcells auto", 2.0, notes=["auto took cpu"]),
    row("torch.nn", 9.0, "training"),
    row("seqcells auto", 8.0, "training", notes=["auto took torch"]),
    row("torch.nn", 0.3, "streaming"),
    row("seqcells cpu", 0.2, "streaming"),
    row("torch.nn cell loop", 0.6, "streaming"),
    row("seqcells auto cell", 0.5, "streaming", notes=["auto took cpu"]),
    row("torch.nn cell loop", 7.0),
    row("torch.nn", 5.0, "packed"),
    row("seqcells cpu", 0, "training", status="refused"),
]


def test_results_become_a_table(tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(result(ROWS_OF_RESULTS)))
    found = results.table(path)
    assert found.points == {
        Point("lstm", "layers", False, "float32", 100, 4, 64): {"torch": 3.0, "cpu": 2.0},
        Point("lstm", "layers", False, "float32", 1, 4, 64): {"torch": 0.3, "cpu": 0.2},
        Point("lstm", "step", False, "float32", 1, 4, 64): {"torch": 0.6, "cpu": 0.5},
    }
    assert found.machine_class == "avx512bf16-l2-unknown" and found.source == "results.json" and found.threads == 2
    path.write_text(json.dumps(result(ROWS_OF_RESULTS, caches={"l2": 512 << 10}, instruction_set="avx2")))
    assert results.table(path).machine_class == "avx2-l2-512k"


@pytest.mark.parametrize("content", ({}, [], result([]), result(ROWS_OF_RESULTS[:1]), result([{}])), ids=range(5))
def test_results_that_give_no_table(content, tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"results\.json gives no table of estimates"):
        results.table(path)
