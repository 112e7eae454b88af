"""The persistent plan with several programs and their barrier, in a child process that runs all programs at once."""

import itertools
import os
from importlib.util import find_spec

import pytest
import torch
from support import UNLIKE, assert_equal_to, distance, gradients, heavy_if, plain_if
from test_triton import run_interpreted

import seqcells
from seqcells.call import run
from seqcells.cells import REGISTRY
from seqcells.request.recurrence import Recurrence
from seqcells.request.weights import Weights

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
here = pytest.mark.skipif(not INTERPRETED, reason="runs in the child process")

if INTERPRETED:
    import concurrent_programs

T, B, H = 4, 3, 37  # three blocks of 16 units, the last one with 5; a width of 64, in chunks of 32


@pytest.mark.skipif(INTERPRETED, reason="this is the child process")
def test_in_a_process_that_interprets():
    run_interpreted("test_triton_persistent.py -m 'not heavy'")


@pytest.mark.heavy
@pytest.mark.skipif(INTERPRETED, reason="this is the child process")
def test_the_rest_in_a_process_that_interprets():
    run_interpreted("test_triton_persistent.py -m 'heavy and not exhaustive'")


@pytest.fixture
def divided(monkeypatch):
    """Three programs for the hidden units; for more than 16 sequences three more, or, with ``groups=1``, another
    launch."""
    from seqcells.kernels.triton.host import configurations

    def divide(groups=2, **how):
        def division(hidden, batch, directions, gates, recurrent, planes, storage, *rest):
            size = {"units": 16, "rows": 16, "groups": groups, "directions": directions, "parts": 2, "chunk": 32}
            return configurations.division(hidden, recurrent, planes, storage, **{**size, **how})

        monkeypatch.setattr(configurations, "persistent", division)

    divide()
    return divide


@pytest.fixture
def flags(request):
    """Whether programs wait by flags."""
    with seqcells.settings(flags=request.param):
        yield


of_each_kind = heavy_if(lambda name, **_: name in UNLIKE)


def with_and_without_flags(*, barrier, flags):
    """Every cell with the barrier and with flags; heavy except for the named cells."""
    return [
        pytest.param(name, way == "flags", marks=() if name in quick else pytest.mark.heavy, id=f"{name}-{way}")
        for way, quick in (("barrier", barrier), ("flags", flags))
        for name in REGISTRY
    ]


def layer(name, directions=1, batch=B, steps=T, dtype=torch.float64, seed=0, hidden=H, **options):
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()

    cell = REGISTRY[name]
    roles = Weights.roles(cell, True, False)
    weights = [
        Weights.of(
            roles, [(randn(*Weights.shape(role, cell, 1, hidden, 0)) * 0.2).detach().requires_grad_() for role in roles]
        )
        for _ in range(directions)
    ]
    states = [[randn(directions, batch, hidden) for _ in cell.states] for _ in range(2)]
    gates_x = randn(steps, batch, directions * len(cell.gates) * hidden)
    q = Recurrence(cell, gates_x, states[0], [w.recurrent for w in weights], **options)
    return q._replace(reset_states=states[1]) if q.reset is not None else q


def boundaries(batch, steps=T):
    generator = torch.Generator().manual_seed(7)
    lengths = torch.randint(0, steps + 1, (batch,), generator=generator)
    return {"lengths": lengths, "reset": torch.rand(steps, batch, generator=generator) < 0.3}


def results(q, backend):
    output, final = run.recurrence(q, backend)
    return [output, *final, *gradients([output, *final], q.differentiable())]


def check(q, programs, backend="triton-persistent", **how):
    with concurrent_programs.concurrent(**how) as launched:
        found = results(q, backend)
    assert launched == programs
    assert_equal_to(found, results(q, "reference"))


@here
@of_each_kind
@pytest.mark.parametrize(
    ("name", "flags"), with_and_without_flags(barrier=("lstm",), flags=("gru",)), indirect=["flags"]
)
def test_programs_together_equal_the_reference(name, flags, divided):
    """Three steps, because the exchange buffer of the first step is reused in the third."""
    check(layer(name, steps=3), [3, 3])


@here
@of_each_kind
@pytest.mark.parametrize(("name", "flags"), with_and_without_flags(barrier=(), flags=("lstm",)), indirect=["flags"])
def test_boundaries_in_both_directions(name, flags, divided):
    check(layer(name, 2, **boundaries(B)), [6, 6])


@here
@pytest.mark.heavy
@pytest.mark.parametrize(("hidden", "programs", "late"), [(17, 2, 1), (37, 3, 0), (61, 4, 3)])
@pytest.mark.parametrize("flags", (True,), ids=("flags",), indirect=True)
def test_flags_heed_a_program_that_is_late(flags, hidden, programs, late, divided):
    """No program reads what the late one has not written, or overwrites what it has not read."""
    check(layer("rnn_tanh", hidden=hidden, steps=5), [programs] * 2, late=lambda program: program[0] == late)


@here
@pytest.mark.heavy
@pytest.mark.parametrize("flags", (False, True), ids=("barrier", "flags"), indirect=True)
@pytest.mark.parametrize(("groups", "programs"), [(2, [6, 6]), (1, [3, 3, 3, 3])])
def test_more_sequences_than_a_program_has_rows(groups, programs, flags, divided):
    divided(groups)
    check(layer("rnn_tanh", batch=18, steps=2), programs)


@here
@pytest.mark.heavy
def test_chosen_but_for_a_switch(divided, monkeypatch):
    """A layer that needs more than one program."""
    from seqcells.kernels.triton.host import configurations
    from seqcells.kernels.triton.plans import plan
    from seqcells.kernels.triton.plans.shape import Shape

    monkeypatch.setattr(configurations, "alone", lambda *layer: False)
    q = layer("rnn_tanh")
    check(q, [3, 3], "triton")
    with seqcells.settings(meeting=False):
        assert plan.plan(Shape.of(q)).name == "fused step"


@here
@pytest.mark.heavy
def test_one_direction_after_the_other(divided):
    divided(directions=1)
    check(layer("rnn_tanh", 2, **boundaries(B)), [3, 3, 3, 3])


@here
@of_each_kind
@pytest.mark.parametrize(("name", "flags"), with_and_without_flags(barrier=("rnn_tanh",), flags=()), indirect=["flags"])
def test_weights_in_shared_memory(name, flags, divided):
    """An interpreter cannot see where weights are; this tests that the other loop takes the same steps."""
    divided(shared=True)
    check(layer(name, **boundaries(B)), [3, 3])


@pytest.fixture
def recomputing(monkeypatch):
    """Inside, backward recomputes the cells' values, for three steps at a time."""
    from seqcells.kernels.triton.host import recompute_window

    monkeypatch.setattr(recompute_window, "steps_at_once", lambda q, values: min(q.steps, 3))
    return seqcells.settings(recompute=True)


def of_two_windows(name, programs):
    """For a cell that saves nothing, backward recomputes nothing, and all steps are one window."""
    from seqcells.kernels.triton.device.cells import CELLS

    return programs if CELLS[name].saved else [programs[0], programs[-1]]


@here
@of_each_kind
@plain_if(lambda name, reverse: name == "lstm" and not reverse)
@pytest.mark.parametrize("reverse", (False, True), ids=("forwards", "backwards"))
@pytest.mark.parametrize("name", REGISTRY)
def test_recomputed_window_by_window(name, reverse, divided, recomputing):
    """Backward is persistent too: before each window's launch, another launch recomputes the values."""
    with recomputing:
        check(layer(name, reverse=reverse, **boundaries(B)), of_two_windows(name, [3, 6, 3, 6, 3]))


@here
@of_each_kind
@pytest.mark.heavy
@pytest.mark.parametrize("name", REGISTRY)
def test_recomputed_in_both_directions(name, divided, recomputing):
    with recomputing:
        check(layer(name, 2, **boundaries(B)), of_two_windows(name, [6, 12, 6, 12, 6]))


@here
@pytest.mark.parametrize("name", ("lstm", "gru"))
def test_recomputing_keeps_less_than_half(name, recomputing):
    """Less than half of what the plan keeps for backward, its output included."""
    from seqcells.kernels.triton.plans import persistent

    q = layer(name)

    def kept():
        output, _, saved = persistent.forward(q, save=True)
        return sum(tensor.nbytes for tensor in (output, *saved))

    everything = kept()
    with recomputing:
        assert 2 * kept() < everything


@here
@pytest.mark.heavy
def test_recomputed_to_the_same_bits_every_time(divided, recomputing):
    q = layer("gru", dtype=torch.float32)
    with recomputing, concurrent_programs.concurrent():
        assert all(map(torch.equal, results(q, "triton-persistent"), results(q, "triton-persistent")))


@here
@pytest.mark.heavy
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_narrow_storage_is_as_near_as_the_stepwise_plan(dtype, divided):
    """Both plans keep states and sums in float32; the sums have another order."""
    q = layer("gru", dtype=dtype)
    truth = results(layer("gru"), "reference")
    with concurrent_programs.concurrent():
        found = results(q, "triton-persistent")
    for got, expected, other in zip(found, truth, results(q, "triton-stepwise"), strict=True):
        assert got.dtype == dtype
        assert distance(got, expected) <= 1.5 * distance(other, expected) + torch.finfo(dtype).eps


@here
@pytest.mark.heavy
def test_float32_in_three_products_of_tensor_cores(divided, monkeypatch):
    """The interpreter's products are always exact float32; this test shows that the parts of the operands add up."""
    q = layer("rnn_tanh", dtype=torch.float32, steps=2)
    with concurrent_programs.concurrent():
        whole = results(q, "triton-persistent")
        monkeypatch.setattr(torch.version, "hip", None)
        with seqcells.settings(precision="tf32x3"):
            assert_equal_to(results(q, "triton-persistent"), whole, 1e-5)


@here
@pytest.mark.heavy
def test_the_same_bits_every_time_and_with_flags(divided):
    q = layer("rnn_tanh", dtype=torch.float32)
    with concurrent_programs.concurrent():
        first, again = (results(q, "triton-persistent") for _ in range(2))
        with seqcells.settings(flags=True):
            by_flags = results(q, "triton-persistent")
    assert all(map(torch.equal, first, again)) and all(map(torch.equal, first, by_flags))


@here
@pytest.mark.parametrize("flags", (False, True), ids=("barrier", "flags"), indirect=True)
def test_a_barrier_that_lets_programs_through_is_found_out(flags, divided, monkeypatch):
    """The test of these tests: if no program waits, the compared results are wrong."""
    from seqcells.kernels.triton.device import barrier

    monkeypatch.setattr(barrier, "wait", lambda counters, count, target, patience: patience)
    with pytest.raises(AssertionError):
        check(layer("lstm"), [3, 3], late=lambda program: program[0] == 1)


@here
@pytest.mark.parametrize("broken", ("count", "target"))
@pytest.mark.parametrize("flags", (True,), ids=("flags",), indirect=True)
def test_a_flag_that_is_overlooked_is_found_out(flags, broken, divided, monkeypatch):
    """One of several flags is skipped, or a flag is read that only says that the step before was written."""
    from seqcells.kernels.triton.device import barrier

    wait = barrier.wait
    fewer = {"count": lambda *a: wait(a[0], a[1] - 1, *a[2:]), "target": lambda *a: wait(*a[:2], a[2] - 1, a[3])}
    monkeypatch.setattr(barrier, "wait", fewer[broken])
    with pytest.raises(AssertionError):
        check(layer("lstm"), [3, 3], late=lambda program: program[0] == 1)


@here
@pytest.mark.parametrize("flags", (False, True), ids=("barrier", "flags"), indirect=True)
def test_a_program_that_never_comes_gives_an_error(flags, divided, monkeypatch, capfd):
    from seqcells.kernels.triton.host import configurations

    monkeypatch.setattr(configurations, "PATIENCE", 20)
    all_but_one = concurrent_programs.concurrent(absent=lambda program: program[0] == 1)
    with torch.no_grad(), all_but_one, pytest.raises(AssertionError, match="programs failed"):
        run.recurrence(layer("rnn_tanh"), "triton-persistent")
    assert "never reached the grid barrier" in capfd.readouterr().err


@pytest.mark.skipif(INTERPRETED, reason="needs no interpreter")
@pytest.mark.parametrize("hidden", [5, 64, 100, 512, 650, 1024, 1500])
@pytest.mark.parametrize(("gates", "planes"), [(4, 1), (4, 4), (3, 1), (3, 3)])
def test_a_division_fits_the_device(gates, planes, hidden):
    """Every unit belongs to a program, everything that is summed is read, and all programs that meet run at once."""
    for given in itertools.product((1, 20, 300), (1, 2), (torch.bfloat16, torch.float32)):
        check_division(gates, planes, hidden, *given)


def check_division(gates, planes, hidden, batch, directions, dtype):
    from seqcells.kernels.triton.host import configurations

    processors, memory = 132, 227 << 10
    found = configurations.persistent(
        hidden, batch, directions, gates, gates, planes, dtype, "tf32", processors, memory
    )
    bytes_of_one = gates * hidden * hidden * dtype.itemsize
    if isinstance(found, str):
        assert "do not fit" in found and bytes_of_one > 0.85 * processors * memory
        return
    tile = found.tile
    assert found.blocks * tile["BLOCK_H"] >= hidden
    assert sum(tile["CHUNKS"]) == tile["WIDTH"] * planes and tile["WIDTH"] >= hidden
    assert all(chunk & (chunk - 1) == 0 and chunk >= 16 * tile["SPLIT"] for chunk in tile["CHUNKS"])
    if found.meet:
        assert found.groups * found.blocks * found.directions <= processors
        assert found.directions in (1, directions)
        held = gates * tile["BLOCK_H"] * tile["WIDTH"] + tile["BLOCK_B"] * tile["CHUNKS"][0]
        assert held * dtype.itemsize <= memory
    else:
        assert found.blocks == 1 and found.groups * tile["BLOCK_B"] >= batch


def test_a_layer_too_large_for_the_chip_is_refused():
    from seqcells.kernels.triton.host import configurations

    refused = configurations.persistent(2048, 16, 1, 4, 4, 1, torch.bfloat16, "ieee", 132, 227 << 10)
    assert refused == "its recurrent weights do not fit on the chip, divided among all multiprocessors"


@pytest.mark.parametrize(
    ("steps", "batch", "hidden", "slower"),
    [(1, 1, 512, True), (100, 1, 512, False), (100, 64, 1024, False), (100, 8192, 512, True), (100, 1, 4096, True)],
)
def test_where_other_plans_are_faster(steps, batch, hidden, slower, monkeypatch):
    from seqcells.kernels.triton.plans import persistent
    from seqcells.kernels.triton.plans.shape import Shape

    monkeypatch.setattr("seqcells.kernels.triton.host.configurations.processors", lambda device: (132, 227 << 10))
    shape = Shape(REGISTRY["lstm"], torch.device("cuda"), torch.bfloat16, steps, batch, 1, hidden, hidden)
    assert bool(persistent.why_not_faster(shape)) == slower


def test_its_model_of_time(monkeypatch):
    """The model has a start and a time for each step. With gradients it is more than twice as much. Without a division
    it gives nothing."""
    from seqcells.kernels.triton.host import configurations
    from seqcells.kernels.triton.plans import persistent
    from seqcells.kernels.triton.plans.shape import Shape

    monkeypatch.setattr("seqcells.kernels.triton.host.configurations.processors", lambda device: (132, 227 << 10))

    def seconds(steps, hidden, gradients=False):
        shape = Shape(REGISTRY["lstm"], torch.device("cuda"), torch.bfloat16, steps, 1, 1, hidden, hidden)
        return persistent.seconds(shape, gradients)

    start = configurations.START_SECONDS
    assert seconds(200, 512) - start == pytest.approx(2 * (seconds(100, 512) - start))
    assert seconds(100, 512, gradients=True) > 2 * seconds(100, 512)
    assert seconds(100, 4096) is None
