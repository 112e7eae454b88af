"""The default on a GPU: tables of the GPU's class decide, tables of other classes where ours leads by far. No GPU is
needed."""

import json
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch

import seqcells
from seqcells import info, tune
from seqcells.call import choose
from seqcells.cells import REGISTRY
from seqcells.kernels import triton
from seqcells.measured import estimates, results
from seqcells.measured.table import Point, Table
from seqcells.request.call import Call, Choice

GPU = torch.device("cuda", 0)
SIZES = ("cell", "form", "steps", "rows", "hidden")
HEAD = {"processor": "a GPU", "threads": 16, "versions": {}, "date": "2026-11-26", "commit": "unknown"}
H200 = Table.load(Path(estimates.__file__).with_name("tables") / "cuda-h200-132sm.json")


def call(steps=512, rows=16, hidden=512, cell="lstm", dtype=torch.bfloat16, form="layers", **more):
    sizes = {"steps": steps, "rows": rows, "hidden": hidden, "width": hidden}
    return Call(REGISTRY[cell], form, GPU, dtype, **sizes, **more)


def chosen(training=False, **wanted):
    with torch.set_grad_enabled(training):
        return choose.choose(call(**wanted))


def table(ours, machine_class="cuda-h200-132sm", wanted=lambda point: True, name="one"):
    """A table: torch's operator takes 10 µs a step, and ours ``ours`` times as long."""
    forms = (("layers", 256), ("layers", 1), ("packed", 256), ("step", 1))
    kinds = product(("lstm", "gru"), forms, (False, True), ("tf32", "bfloat16"), product((1, 64), (256, 1024)))
    points = [Point(cell, form, *kind, steps, *sizes) for cell, (form, steps), *kind, sizes in kinds]
    seconds = {p: {"torch": 1e-5 * p.steps, "triton": 1e-5 * p.steps * ours} for p in points if wanted(p)}
    head = {"source": "a test", "complete": True, "machine_class": machine_class, "name": name}
    return Table(points=seconds, **head, **HEAD)


# On the GPU that was measured.


@pytest.mark.parametrize(
    ("wanted", "training", "expected"),
    (
        ({"cell": "gru", "dtype": torch.float16, "hidden": 256}, False, "triton"),
        ({"cell": "gru", "dtype": torch.float16, "hidden": 256}, True, "triton"),
        ({"rows": 128, "hidden": 1024, "steps": 256}, True, "triton"),
        ({"rows": 64, "hidden": 1024}, False, "triton"),
        ({"rows": 64, "hidden": 1024, "dtype": torch.float32}, False, "triton"),
        ({"rows": 64, "hidden": 1024, "dtype": torch.float32}, True, "torch"),
        ({"rows": 16, "hidden": 300, "dtype": torch.float32, "steps": 200}, True, "triton"),
        ({"steps": 200}, False, "triton"),
        ({"rows": 32, "hidden": 256, "dtype": torch.float32, "steps": 32}, False, "torch"),
        *(({"steps": steps}, training, "torch") for steps in (1, 2, 32) for training in (False, True)),
        ({"rows": 1, "hidden": 96, "dtype": torch.float32, "steps": 256}, False, "torch"),
        ({"hidden": 3000}, False, "torch"),
        ({"hidden": 128}, False, "torch"),
        ({"dtype": torch.float64}, False, "torch"),
        ({"dtype": torch.float16}, False, "torch"),
        ({"cell": "rnn_tanh"}, False, "torch"),
        ({"form": "step", "steps": 1}, False, "torch"),
        ({"options": ("packed",)}, True, "torch"),
        ({"options": ("projection",)}, False, "torch"),
        ({"rows": 0, "steps": 0, "hidden": 0}, False, "torch"),
    ),
    ids=str,
)
def test_an_h200_takes_what_was_faster_there_and_torchs_operator_where_nothing_was_measured(
    wanted, training, expected, gpu, tables
):
    tables(shipped=[H200])
    choice = chosen(training, **wanted)
    assert choice.backend == expected
    told = "shipped table cuda-h200-132sm of 2026-11-26" in choice.reason
    assert told or (expected == "torch" and "no table of measured seconds covers the call" in choice.reason)


def test_all_that_was_measured_over_many_steps_goes_to_the_faster(gpu, tables):
    tables(shipped=[H200])
    for point, seconds in H200.points.items():
        dtype = torch.float32 if point.dtype == "tf32" else getattr(torch, point.dtype)
        choice = chosen(point.training, dtype=dtype, **{name: getattr(point, name) for name in SIZES})
        assert choice.backend == min(seconds, key=seconds.get), point


def test_a_plan_tells_whose_table_and_how(gpu, tables):
    tables(own=[table(0.5, name="mine")])
    reason = choose.explain(call()).reason
    assert "own table mine of 2026-11-26; by persistent" in reason and "by torch's operator" in reason


def test_own_tables_go_before_shipped_ones_which_tell_of_the_rest(gpu, tables):
    tables(own=[table(2.0, name="mine", wanted=lambda point: point.cell == "lstm")], shipped=[table(0.5)])
    for cell, expected, whose in (("lstm", "torch", "own table mine"), ("gru", "triton", "shipped table one")):
        choice = chosen(cell=cell)
        assert choice.backend == expected and whose in choice.reason


def test_packed_sequences_are_a_kind_of_their_own(gpu, tables):
    points = table(2.0).points | table(0.5, wanted=lambda point: point.form == "packed").points
    tables(own=[replace(table(1.0), points=points)])
    assert chosen().backend == "torch" and chosen(options=("packed",)).backend == "triton"
    tables(own=[table(0.5, wanted=lambda point: point.form != "packed")])
    assert chosen().backend == "triton" and chosen(options=("packed",)).backend == "torch"


def test_what_float32_is_rounded_to_is_a_kind_of_its_own(gpu, tables, monkeypatch):
    tables(own=[table(0.5)])
    for mode, expected in (("tf32", "triton"), ("ieee", "torch"), ("tf32", "triton")):
        monkeypatch.setattr(torch.backends.cudnn.rnn, "fp32_precision", mode)
        assert chosen(dtype=torch.float32).backend == expected


def test_a_gpu_is_asked_once_what_it_is(gpu, tables):
    tables(own=[table(0.5)])
    for rows in range(1, 20):
        chosen(rows=rows)
    assert gpu.asked == [GPU]


def test_two_gpus_of_a_machine_have_each_its_table(gpu, tables):
    tables(own=[table(0.5)])
    assert chosen().backend == "triton"
    gpu("NVIDIA A100-SXM4-40GB", 108)
    assert chosen().backend == "torch"


def test_kernels_other_than_those_measured_are_not_taken(gpu, tables, monkeypatch):
    tables(own=[table(0.5)])
    with seqcells.settings(meeting=False):
        assert chosen().backend == "torch" and "settings(meeting=False)" in chosen().reason
    monkeypatch.setattr(triton, "interpreted", lambda: True)
    assert chosen().backend == "torch" and "interpreter" in chosen().reason


def test_inside_torch_compile_ours_is_one_operator_whatever_a_table_says(gpu, tables, monkeypatch):
    tables(own=[table(9.0)])
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    choice = chosen()
    assert choice.backend == "triton" and choice.reason.startswith("torch.compile: one operator")


# On a GPU that was never measured.


def test_an_unknown_gpu_takes_ours_where_it_leads_by_far_on_every_measured_one(gpu, tables):
    gpu("NVIDIA H100 80GB HBM3", 132)
    for ratios, expected in (((0.5, 0.79), "triton"), ((0.5, 0.81), "torch"), ((0.5,), "triton")):
        tables(shipped=[table(ratio, f"cuda-some{ratio}-132sm", name=str(ratio)) for ratio in ratios])
        choice = chosen()
        assert choice.backend == expected
        words = f"no table of this machine covers it, and in those of others ours is at least {1 / max(ratios):.3g}"
        assert words in choice.reason and "1.25 is asked for" in choice.reason


def test_a_lead_that_is_enough_on_the_measured_gpu_is_not_on_another(gpu, tables):
    tables(shipped=[H200])
    close, wide = {"cell": "gru", "dtype": torch.float32, "rows": 64, "hidden": 1024}, {"cell": "gru"}
    assert chosen(True, **close).backend == chosen(True, **wide).backend == "triton"
    gpu("NVIDIA H100 80GB HBM3", 132)
    assert chosen(True, **close).backend == "torch" and chosen(True, **wide).backend == "triton"


@pytest.mark.parametrize(
    "wanted", ({"rows": 65}, {"hidden": 1025}, {"hidden": 255}, {"options": ("lengths",)}), ids=str
)
def test_beyond_what_was_measured_an_unknown_gpu_takes_torchs(wanted, gpu, tables):
    gpu("NVIDIA H100 80GB HBM3", 132)
    tables(shipped=[table(0.1)])
    with torch.no_grad():
        choice = estimates.leader(call(**wanted))
    assert choice == Choice("torch", "no table of measured seconds covers the call")


def test_a_part_of_a_gpu_where_the_weights_do_not_fit_is_another_machine(gpu, tables):
    tables(shipped=[H200])
    gpu("NVIDIA H200 MIG 1g.18gb", 16)
    large = {"rows": 16, "hidden": 1024}
    assert chosen(**large).backend == "torch" and "no table of measured seconds" in chosen(**large).reason
    gpu("NVIDIA H200", 132)
    assert chosen(**large).backend == "triton"


def test_gpus_before_ampere_go_by_their_own_tables_alone(gpu, tables, monkeypatch):
    monkeypatch.setattr(triton, "since_ampere", lambda device=None: False)
    gpu("Tesla V100-SXM2-16GB", 80)
    tables(shipped=[table(0.1)])
    assert chosen().backend == "torch"
    tables(own=[table(0.5, "cuda-v100-80sm")])
    assert chosen().backend == "triton"


def test_tables_of_cpus_tell_nothing_of_gpus(gpu, tables):
    on_cpu = {point: {"torch": 1.0, "cpu": 0.1} for point in table(1.0).points}
    tables(shipped=[replace(table(1.0, "avx2-l2-512k"), points=on_cpu)])
    assert chosen().reason == "a plain call: torch's own operator; no table of measured seconds covers the call"
    assert estimates.seconds("triton", call()) is None
    with pytest.raises(ValueError, match="seconds of 'torch' and 'triton', not of 'cpu'"):
        estimates.seconds("cpu", call())


# Measuring a GPU, and the report.


def test_a_gpu_is_measured_by_the_same_command_and_its_table_is_used(gpu, tables, monkeypatch, capsys):
    monkeypatch.setattr(triton, "why_not_available", lambda: None)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200")
    monkeypatch.setattr(tune, "runner", lambda point, backend, device: (point, backend, device))
    modes = {}

    def timed(runs, synchronize):
        assert synchronize.func is torch.cuda.synchronize and [*runs] == ["torch", "triton"]
        point, _, device = runs["triton"]
        assert device == torch.device("cuda")
        modes[point.dtype] = torch.backends.cudnn.rnn.fp32_precision
        return {"torch": 1e-3 * point.steps, "triton": 4e-4 * point.steps}

    monkeypatch.setattr(tune, "timed", timed)
    before = torch.backends.cudnn.rnn.fp32_precision
    tune.main(["--device", "cuda"])
    assert torch.backends.cudnn.rnn.fp32_precision == before
    assert modes["tf32"] == "tf32" and modes["float32"] == "ieee"
    (path,) = estimates.own_folder().iterdir()
    assert path.name == "cuda-h200-132sm.json"
    measured = Table.load(path)
    assert measured.complete and [*measured.points] == list(tune.GRIDS["cuda"].points())
    assert {"triton", "cudnn"} <= measured.versions.keys() and measured.processor == "NVIDIA H200"
    for wanted in ({}, {"options": ("packed",)}, {"dtype": torch.float16, "steps": 3}, {"form": "step", "steps": 1}):
        choice = chosen(**wanted)
        assert choice.backend == "triton" and "own table cuda-h200-132sm" in choice.reason
    assert "tf32 inference lstm layers B64 H256 T256: torch 256000.0 µs" in capsys.readouterr().out


@pytest.mark.parametrize("name", ("cuda", "cuda:1"))
def test_what_is_not_there_is_not_measured(name, monkeypatch):
    monkeypatch.setattr(triton, "why_not_available", lambda: "torch finds no GPU")
    with pytest.raises(SystemExit, match="nothing to compare torch's operators with: torch finds no GPU"):
        tune.main(["--device", name])


@pytest.mark.parametrize("name", ("meta", "gpu", "cpus"))
def test_devices_without_kernels_are_not_measured(name, capsys):
    with pytest.raises(SystemExit):
        tune.main(["--device", name])
    assert "--device" in capsys.readouterr().err


def test_info_tells_which_table_a_gpu_has(gpu, tables, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(triton, "why_not_available", lambda: None)
    monkeypatch.setattr(info, "_devices", list)
    assert "cuda:0: machine class: cuda-h200-132sm" in info.report()
    assert "`python -m seqcells.tune --device cuda:0` measures one" in info.report()
    tables(shipped=[H200])
    assert (
        f"cuda:0: table in use: shipped table cuda-h200-132sm of 2026-11-26, 16 threads, {len(H200.points)} points"
        in (info.report())
    )


# The additional entries of a GPU's table.


def test_no_call_takes_less_than_pythons_part_of_it():
    host = {"torch": {"inference": 2e-4, "training": 8e-4}, "triton": {"inference": 1e-3, "training": 3e-3}}
    measured = replace(table(0.5, wanted=lambda point: point.steps != 1), host=host)

    def seconds(backend, steps, training, **more):
        return measured.seconds(backend, call(steps, **more), training)

    assert [seconds(name, 32, False) for name in host] == pytest.approx([3.2e-4, 1e-3])
    assert [seconds(name, 400, True) for name in host] == pytest.approx([4e-3, 3e-3])
    assert [seconds(name, 1000, True) for name in host] == pytest.approx([1e-2, 5e-3])
    assert seconds("triton", 32, False, layers=2) == pytest.approx(2e-3)
    assert seconds("triton", 32, False, options=("packed",)) == pytest.approx(1e-3)


def test_a_size_measured_over_few_steps_does_not_hide_what_was_over_many():
    """Each number of steps has its own measured sizes, and gives estimates only within these sizes."""
    points = table(0.5, wanted=lambda point: point.steps == 256).points
    alone = Point("lstm", "layers", False, "bfloat16", 32, 16, 512)
    measured = replace(table(0.5), points=points | {alone: {"torch": 1.0, "triton": 3.0}})
    for rows, steps, expected in ((64, 32, 32e-5), (16, 32, 1.0), (128, 32, None)):
        found = measured.seconds("torch", call(steps, rows), False, beyond=False)
        assert found == (None if expected is None else pytest.approx(expected))


def test_origins_of_points_come_back(tmp_path):
    path = tmp_path / "one.json"
    point, *_ = table(1.0).points
    host = {"torch": {"inference": 1e-4, "training": 1e-3}}
    marked = replace(table(1.0), origins={"notes": "by hand"}, origin_of={point: "notes"}, host=host)
    path.write_text(marked.to_json())
    again = Table.load(path)
    assert replace(again, points={}) == replace(marked, points={})
    assert path.read_text().count('"origin":') == 1
    for before, after in (('"origin": "notes"', '"origin": "nobody"'), ("0.0001", "-0.0001")):
        path.write_text(marked.to_json().replace(before, after, 1))
        with pytest.raises(ValueError, match=r"one\.json is no table of estimates: (a point's origin|its seconds)"):
            Table.load(path)


def test_results_of_a_gpu_become_a_table_of_its_class(tmp_path):
    sizes = {"batch": 4, "hidden": 64, "steps": 100, "cell": "gru", "dtype": "tf32", "status": "ok"}
    given = (
        ("torch.nn", "sequence", 3.0, []),
        ("seqcells triton", "sequence", 2.0, []),
        ("torch.nn", "training", 9.0, []),
        ("seqcells auto", "training", 8.0, ["auto took triton"]),
        ("torch.nn", "streaming", 0.3, []),
        ("seqcells auto", "streaming", 0.3, ["auto took torch"]),
        ("torch.nn", "packed", 5.0, []),
        ("seqcells triton", "packed", 4.0, []),
    )
    rows = [
        {"provider": provider, "suite": suite, "figure": {"median": median}, "notes": notes} | sizes
        for provider, suite, median, notes in given
    ]
    gpu = {"cpu": "a processor", "flags": [], "threads": 16, "gpu": "NVIDIA L4", "gpu_multiprocessors": 58}
    versions = {"python": "3.12", "torch": "2.11", "triton": "3.6", "numpy": "2.5"}
    report = {
        "device": "cuda",
        "machine": gpu,
        "versions": versions,
        "rows": rows,
        "date": "2026-11-26",
        "commit": "c7",
    }
    path = tmp_path / "results.json"
    path.write_text(json.dumps(report | {"complete": True}))
    found = results.table(path)
    assert found.points == {
        Point("gru", "layers", False, "tf32", 100, 4, 64): {"torch": 3.0, "triton": 2.0},
        Point("gru", "layers", True, "tf32", 100, 4, 64): {"torch": 9.0, "triton": 8.0},
    }
    assert found.machine_class == "cuda-l4-58sm" and found.processor == "NVIDIA L4"
    assert found.versions == {"python": "3.12", "torch": "2.11", "triton": "3.6"} and found.commit == "c7"
