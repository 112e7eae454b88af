"""Cells of several stages on the Triton engine against the reference, in a child process that interprets."""

import os
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from multiprocessing import get_context

import pytest
import torch
from recurrences import random_recurrence, results
from support import assert_equal_to, distance, heavy_if, plain_if
from test_triton import run_interpreted

import seqcells
from seqcells import cells
from seqcells.backends import engine_of
from seqcells.call import run
from seqcells.cells import Cell, units
from seqcells.cells.activations import sigmoid, softplus, tanh, where
from seqcells.derive.print_stages import triton_stages
from seqcells.request.recurrence import Backward

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
here = pytest.mark.skipif(not INTERPRETED, reason="runs in the child process")

if INTERPRETED:
    import concurrent_programs

CELLS = {
    cell.name: cell
    for cell in (
        cells.GRUResetBefore,
        cells.MGU,
        cells.MultiplicativeLSTM,
        cells.RecurrentHighway,
        cells.LayerNormLSTM,
        cells.LayerNormGRU,
        cells.BlockGRU,
        cells.BlockGRU.configured(heads=2),
        cells.MultiHeadSLSTM,
    )
}
PLAIN = "gru_reset_before"
FORMS = {
    "plain": {},
    "lengths": {"lengths": True},
    "resets": {"resets": True},
    "both backwards": {"lengths": True, "resets": True, "reverse": True},
    "both, two directions": {"lengths": True, "resets": True, "directions": 2},
}
every_cell = pytest.mark.parametrize("name", CELLS)
# A form with lengths and resets runs what the forms with one of them run; these are for two cells.
some_forms = heavy_if(lambda name, form: name in (PLAIN, "layer_norm_lstm") or form not in ("lengths", "resets"))
one_cell = plain_if(lambda name, form="both, two directions": name == PLAIN and form == "both, two directions")


@pytest.mark.skipif(INTERPRETED, reason="this is the child process")
def test_in_a_process_that_interprets():
    run_interpreted("test_triton_stages.py -m 'not heavy and not exhaustive'")


@pytest.mark.heavy
@pytest.mark.skipif(INTERPRETED, reason="this is the child process")
def test_the_rest_in_a_process_that_interprets():
    run_interpreted("test_triton_stages.py -m 'heavy and not exhaustive'")


class Attending(Cell):
    """An invented cell with reductions that no other cell has, and with learnable scalars."""

    name = "attending"
    gates, recurrent_gates, states = ("a", "h"), ("a",), ("h",)
    products = {"value": ("h",)}
    scalars = ("temperature", "push")

    @staticmethod
    def step(x, r, s, p):
        attention = units.softmax((x.a + r.a) * softplus(p.temperature))
        value = tanh(x.h + p.value(attention * s.h) + p.push * units.max(s.h) - units.sum(attention * s.h))
        return s.h + sigmoid(4 * attention) * (value - s.h)


def layer(name, *options, **named):
    """A recurrence of random tensors."""
    return random_recurrence(CELLS[name], *options, **named)


@here
@one_cell
@some_forms
@every_cell
@pytest.mark.parametrize("form", FORMS)
def test_steps_as_the_reference(name, form):
    """Results and every gradient, also for sequences without a step and for units that fill no tile."""
    q = layer(name, **FORMS[form])
    assert_equal_to(results(q, "triton-stepwise"), results(q, "reference"), 1e-10)


@here
@one_cell
@every_cell
def test_from_an_input_without_biases_by_the_plan_that_is_chosen(name):
    q = layer(name, hidden=8, features=5, bias=False, directions=2)
    assert_equal_to(results(q, "triton"), results(q, "reference"), 1e-10)


class Asking(Cell):
    """An invented cell that uses a gate only in a condition."""

    name = "asking"
    gates, recurrent_gates, states = ("a", "b"), ("b",), ("h",)
    products = {"value": ("h",)}

    @staticmethod
    def step(x, r, s, p):
        return where(x.a > 0, tanh(p.value(tanh(x.b + r.b))), s.h)


@here
def test_a_gate_of_which_a_condition_alone_is_made_has_no_gradient(compiling, own_registry):
    cells.register(Asking)
    CELLS["asking"] = Asking
    try:
        q = layer("asking", features=4)
        assert_equal_to(results(q, "triton-stepwise"), results(q, "reference"), 1e-10)
    finally:
        CELLS.pop("asking")


@here
@pytest.mark.heavy
@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16, torch.float16), ids=str)
@pytest.mark.parametrize("name", CELLS)
def test_as_near_to_float64_as_the_reference(name, dtype):
    """Products have the storage's dtype; states are carried in float32."""
    q = layer(name, dtype, steps=4, lengths=True, resets=True, directions=2)
    exact = q.replaced([t.detach().double().requires_grad_() for t in q.differentiable()])
    found, judged, truth = results(q, "triton-stepwise"), results(q, "reference"), results(exact, "reference")
    for mine, other, true in zip(found, judged, truth, strict=True):
        assert mine.dtype == dtype
        assert distance(mine, true) <= max(4 * torch.finfo(dtype).eps, 2 * distance(other, true))


@here
@pytest.mark.heavy
@pytest.mark.parametrize("name", ("gru_reset_before", "layer_norm_gru"))
def test_programs_together_are_as_near_in_narrow_storage(name, divided):
    """As near as the stepwise plan; the sums have another order."""
    q = layer(name, torch.bfloat16)
    exact = q.replaced([t.detach().double().requires_grad_() for t in q.differentiable()])
    with concurrent_programs.concurrent():
        found = results(q, "triton-persistent")
    truth = results(exact, "reference")
    for mine, other, true in zip(found, results(q, "triton-stepwise"), truth, strict=True):
        assert distance(mine, true) <= 1.5 * distance(other, true) + torch.finfo(torch.bfloat16).eps


@here
@plain_if(lambda name, **_: name == "block_gru")
@pytest.mark.parametrize(("name", "launches"), [("layer_norm_lstm", 1), ("recurrent_highway", 3), ("block_gru", 1)])
def test_a_launch_for_each_stage_that_begins_with_a_product(name, launches, monkeypatch):
    """Reductions cost no launch. The numbers are counted by hand from the equations, plus one launch before the first
    step."""
    from seqcells.kernels.triton.host import launch

    seen, call = [], launch.Launch.__call__

    def watched(self, start, stop):
        seen.append(start)
        return call(self, start, stop)

    monkeypatch.setattr(launch.Launch, "__call__", watched)
    with torch.no_grad():
        run.recurrence(layer(name, steps=5), "triton-stepwise")
    assert len(seen) == 1 + 5 * launches


@pytest.fixture
def divided(monkeypatch):
    """A program for every eight hidden units."""
    from seqcells.kernels.triton.host import staged_divisions

    def divide(groups=4, directions=2):
        def division(hidden, batch, sides, *rest):
            tile = {"BLOCK_B": 16, "BLOCK_H": 8, "BLOCKS": 4, "DIVISOR": 1, "SHARED": hidden > 24, "num_warps": 8}
            return staged_divisions.Division(tile, -(-hidden // 8), groups, min(sides, directions))

        monkeypatch.setattr(staged_divisions, "division", division)

    divide()
    return divide


def check_meeting(q, programs, **how):
    with concurrent_programs.concurrent(**how) as launched:
        found = results(q, "triton-persistent")
    assert launched == programs
    assert_equal_to(found, results(q, "reference"), 1e-10)


@here
@plain_if(lambda name, form: name == PLAIN and form == "both backwards")
@some_forms
@every_cell
@pytest.mark.parametrize("form", FORMS)
def test_programs_together_equal_the_reference(name, form, divided):
    """Three steps, because the exchange buffer of the first step is reused in the third."""
    programs = 4 if CELLS[name].heads() > 1 else 3
    if CELLS[name].heads() > programs:
        pytest.skip("a program would have units of two heads")
    q = layer(name, hidden=8 * programs, **FORMS[form])
    check_meeting(q, [programs * len(q.weights)] * 2)


@here
@pytest.mark.heavy
def test_a_program_that_is_late_is_heeded(divided):
    """No program reads what the late one has not written, or overwrites what it has not read: operands and partial
    results of reductions."""
    late = {"late": lambda program: program[0] == 1}
    check_meeting(layer("layer_norm_gru", steps=4), [3, 3], **late)
    check_meeting(layer("recurrent_highway", steps=4), [3, 3], **late)


@here
@pytest.mark.heavy
@pytest.mark.parametrize("name", ("gru_reset_before", "layer_norm_gru"))
def test_a_barrier_that_lets_programs_through_is_found_out(name, divided, monkeypatch):
    """The test of these tests: if no program waits, the compared results are wrong."""
    from seqcells.kernels.triton.device import barrier

    monkeypatch.setattr(barrier, "wait", lambda counters, count, target, patience: patience)
    with pytest.raises(AssertionError):
        check_meeting(layer(name), [3, 3], late=lambda program: program[0] == 1)


@here
@pytest.mark.heavy
def test_a_program_that_never_comes_gives_an_error(divided, monkeypatch, capfd):
    from seqcells.kernels.triton.host import configurations

    monkeypatch.setattr(configurations, "PATIENCE", 20)
    all_but_one = concurrent_programs.concurrent(absent=lambda program: program[0] == 1)
    with torch.no_grad(), all_but_one, pytest.raises(AssertionError, match="programs failed"):
        run.recurrence(layer("layer_norm_gru"), "triton-persistent")
    assert "never reached the grid barrier" in capfd.readouterr().err


@here
@pytest.mark.heavy
def test_more_sequences_than_a_launch_has_rows(divided):
    """One block of the batch after another, one direction after another."""
    divided(groups=1, directions=1)
    check_meeting(layer("gru_reset_before", steps=2, batch=18, directions=2), [3] * 8)


@here
@pytest.mark.parametrize("backend", ("triton-stepwise", pytest.param("triton-persistent", marks=pytest.mark.heavy)))
@pytest.mark.usefixtures("compiling")
def test_another_cell_from_the_text_that_is_printed_for_it(backend, monkeypatch, divided):
    """At first use. The cell has a maximum and a sum of a row, twice, and then a product."""
    cell = Attending
    monkeypatch.setitem(CELLS, cell.name, cell)
    q = layer(cell.name, steps=2, lengths=True, resets=True, hidden=24 if backend == "triton-persistent" else 130)
    if backend == "triton-persistent":
        check_meeting(q, [3, 3])
    else:
        assert_equal_to(results(q, backend), results(q, "reference"), 1e-10)


@here
def test_its_plan_says_so(monkeypatch):
    """The plan also names backward's plan, where it is another."""

    def reason(cell, backend, hidden):
        module = seqcells.define(cell)[0](8, hidden, backend=backend, dtype=torch.bfloat16)
        return module.plan(torch.zeros(300, 2, 8, dtype=torch.bfloat16)).reason

    assert "by stepwise" in reason(cells.MultiHeadSLSTM, "triton", 32)
    monkeypatch.setattr("seqcells.kernels.triton.host.configurations.processors", lambda device: (132, 227 << 10))
    assert "by persistent" in reason(cells.GRUResetBefore, "triton", 512)
    for backend in ("triton", "triton-persistent"):
        words = reason(cells.LayerNormLSTM, backend, 512)
        assert "backward by stepwise: a stage reads 51 values" in words
    with seqcells.settings(meeting=False):
        assert "by stepwise (not persistent: seqcells.settings" in reason(cells.GRUResetBefore, "triton", 512)
    assert "weights do not fit in registers" in reason(cells.GRUResetBefore, "triton-persistent", 4096)
    assert "100 units, no multiple of 8" in reason(cells.GRUResetBefore, "triton-persistent", 100)
    assert "units would be of two heads" in reason(cells.MultiHeadSLSTM, "triton-persistent", 48)


@here
@pytest.mark.parametrize("cell", (cells.BlockGRU, cells.MultiHeadSLSTM))
def test_the_printed_text_is_of_any_number_of_heads(cell):
    """So a cell with another number of heads runs on its base's kernels."""
    other = cell.configured(heads=2)
    text = triton_stages([other]).replace(other.name, cell.name)
    assert text.replace(f"{cell.name}_heads_2_", cell.name) == triton_stages([cell])


def resources(backend, names, target="sm_90", hidden=512, dtype=torch.bfloat16):
    """For each kernel that a layer's two passes launch: its name and its resources, compiled ahead of time."""
    from benchmarks.resources.binaries import compiled
    from benchmarks.resources.launches import TARGETS, recorded

    found = []
    for name in names:
        q = layer(name, dtype, batch=4, hidden=hidden, lengths=True, resets=True)
        q = q.replaced([tensor.detach().to("meta") for tensor in q.differentiable()])
        q = q._replace(lengths=q.lengths.to("meta"), reset=q.reset.to("meta"))
        with recorded(TARGETS[target]) as launched:
            output, final, saved = engine_of(backend).forward(q, True)
            wanted = q.replaced([True] * len(q.differentiable()))
            engine_of(backend).backward(q, Backward(output, saved, output, final, wanted))
        kernels = {(each.function, each.key): each for each in launched}.values()
        found += [(name, each.name, compiled(each, TARGETS[target], mix=False)) for each in kernels]
    return found


PERSISTENT = ("gru_reset_before", "recurrent_highway", "block_gru", "layer_norm_lstm")


@pytest.mark.heavy
@pytest.mark.skipif(INTERPRETED, reason="what is interpreted is not compiled")
@pytest.mark.parametrize(("backend", "target"), [("triton-persistent", "sm_90"), ("triton-stepwise", "sm_80")])
def test_nothing_spills(backend, target):
    """Both passes of these cells are persistent, except for the layer-normalised LSTM's backward. Its stage has more
    values than there are registers."""
    with pytest.MonkeyPatch.context() as patch, ProcessPoolExecutor(1, get_context("spawn")) as pool:
        patch.delenv("TRITON_INTERPRET", raising=False)
        found = pool.submit(resources, backend, PERSISTENT, target).result()
    assert all(each.stack == 0 for _, _, each in found), found
    if backend == "triton-persistent":
        by_steps = {name for name, kernel, _ in found if not kernel.startswith("staged_sequence")}
        assert (
            by_steps == {"layer_norm_lstm"} and sum(kernel.startswith("staged_sequence") for _, kernel, _ in found) == 7
        )
