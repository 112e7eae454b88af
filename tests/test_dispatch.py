"""The choice of a backend: named backends run or say why not, and the default gives its reason."""

from itertools import product

import pytest
import torch

import seqcells
from seqcells import functional
from seqcells.backends import BACKENDS
from seqcells.cells import REGISTRY
from seqcells.derive.transformed_cells import cell_of
from seqcells.measured.table import Point, Table
from seqcells.request.weights import Weights

# The default backend where torch has no operator.
OURS = "reference" if BACKENDS["cpu"].why_not_available() else "cpu"
TO_COME = [name for name, entry in BACKENDS.items() if entry.why_not_available()]
INPUT = torch.randn(3, 2, 4)


@pytest.mark.parametrize("make", (seqcells.LSTM, seqcells.GRU, seqcells.RNN, seqcells.LSTMCell, seqcells.PeepholeLSTM))
def test_a_name_that_is_none_is_refused_at_once(make):
    with pytest.raises(ValueError, match=r"unknown backend 'cuda'.*'reference'"):
        make(4, 5, backend="cuda")


@pytest.mark.parametrize("backend", TO_COME)
def test_a_backend_that_does_not_exist_here_raises_and_says_why(backend):
    for module, input in (
        (seqcells.LSTM(4, 5, backend=backend), INPUT),
        (seqcells.GRUCell(4, 5, backend=backend), INPUT[0]),
    ):
        with pytest.raises(RuntimeError, match=f"backend='{backend}' cannot run this call: .+"):
            module(input)


@pytest.mark.parametrize(
    ("kwargs", "why"),
    (
        ({"lengths": torch.tensor([1, 2])}, "no lengths="),
        ({"reset": torch.zeros(3, 2, dtype=torch.bool)}, "no reset="),
    ),
)
def test_torch_refuses_what_its_operators_lack(kwargs, why, tables):
    layer = seqcells.LSTM(4, 5, backend="torch")
    with pytest.raises(RuntimeError, match=why):
        layer(INPUT, **kwargs)
    layer.backend = "auto"
    assert layer.plan(INPUT.repeat(1, 8, 1)).backend == "torch"
    choice = layer.plan(INPUT, **kwargs)
    assert choice.backend == OURS and why in choice.reason


def test_torch_refuses_cells_it_lacks():
    for module, input in (
        (seqcells.PeepholeLSTM(4, 5, backend="torch"), INPUT),
        (seqcells.PeepholeLSTMCell(4, 5, backend="torch"), INPUT[0]),
    ):
        with pytest.raises(RuntimeError, match="torch has no operator for the peephole_lstm cell"):
            module(input)
        module.backend = "auto"
        assert module.plan(input).backend == OURS


needs_engine = pytest.mark.skipif(OURS == "reference", reason="the CPU engine is not built")


def measured(ours):
    """A table in which `ours` gives our time as a multiple of torch's operator's, by the kind of call."""
    rows, hidden, forms = (1, 8, 64), (8, 256), (("layers", 1), ("layers", 32), ("step", 1))
    kinds = product(("lstm", "gru"), forms, (False, True), ("float32", "bfloat16"), rows, hidden)
    points = {
        Point(cell, form, training, dtype, steps, rows, hidden): {
            "torch": 1e-6 * steps * rows * hidden,
            "cpu": 1e-6 * steps * rows * hidden * ours(cell, form, training, dtype, steps, rows),
        }
        for cell, (form, steps), training, dtype, rows, hidden in kinds
    }
    return Table("avx2-l2-512k", "a processor", 1, {}, "2026-11-26", "unknown", "a test", True, points, "one")


def backend_of(module, *shape, training=False):
    input = torch.randn(shape, dtype=module.weight_ih_l0.dtype if hasattr(module, "weight_ih_l0") else None)
    with torch.set_grad_enabled(training):
        return module.plan(input).backend


@needs_engine
@pytest.mark.parametrize("training", (False, True), ids=("inference", "training"))
@pytest.mark.parametrize("cell", ("LSTM", "GRU"))
def test_the_default_goes_by_the_estimates(cell, training, tables):
    """Each property that a table distinguishes affects the choice."""
    layer, module = getattr(seqcells, cell), getattr(seqcells, f"{cell}Cell")

    def ours(*wanted):
        def times(*kind):
            return 0.9 if all(w is None or w == k for w, k in zip(wanted, kind, strict=True)) else 1.1

        tables(own=[measured(times)])

    for name in ("lstm", "gru"):
        ours(name, None, None, None, None, None)
        for found in (
            backend_of(layer(4, 16), 32, 3, 4, training=training),
            backend_of(layer(4, 16, batch_first=True), 3, 32, 4, training=training),
            backend_of(module(4, 16), 3, 4, training=training),
        ):
            assert found == ("cpu" if name == cell.lower() else "torch")
    ours(None, "step", None, None, None, None)
    assert backend_of(module(4, 16), 3, 4, training=training) == "cpu"
    assert backend_of(layer(4, 16), 1, 3, 4, training=training) == "torch"
    ours(None, None, training, None, None, None)
    assert backend_of(layer(4, 16), 9, 3, 4, training=training) == "cpu"
    assert backend_of(layer(4, 16), 9, 3, 4, training=not training) == "torch"
    ours(None, None, None, "bfloat16", None, None)
    for dtype, expected in ((torch.bfloat16, "cpu"), (torch.float32, "torch")):
        assert backend_of(layer(4, 16, dtype=dtype), 9, 3, 4, training=training) == expected
    ours(None, None, None, None, 1, None)
    assert backend_of(layer(4, 16), 1, 3, 4, training=training) == "cpu"
    assert backend_of(layer(4, 16), 32, 3, 4, training=training) == "torch"
    ours(None, None, None, None, None, 64)
    for rows, expected in ((1, "torch"), (8, "torch"), (60, "cpu"), (64, "cpu"), (500, "cpu")):
        assert backend_of(layer(4, 16), 9, rows, 4, training=training) == expected


@needs_engine
@pytest.mark.parametrize("lead", (0.5, 2.0), ids=("ours", "torch's"))
def test_the_default_where_no_table_tells(lead, tables):
    """Tables of other calls do not count: torch has no fused kernel for these calls, or is not known to be slower."""
    tables(own=[measured(lambda *kind: lead)])
    for layer, rows, training, expected in (
        (seqcells.LSTM(4, 5, dtype=torch.float16), 1, False, "torch"),
        (seqcells.LSTM(4, 5, dtype=torch.float64), 64, True, "cpu"),
        (seqcells.GRU(4, 5, dtype=torch.float64), 64, True, "cpu"),
        (seqcells.LSTM(4, 5, proj_size=2), 64, True, "cpu"),
        (seqcells.RNN(4, 5, batch_first=True), 64, True, "cpu"),
    ):
        shape = (rows, 3, 4) if layer.batch_first else (3, rows, 4)
        assert backend_of(layer, *shape, training=training) == expected
    packed = torch.nn.utils.rnn.pack_padded_sequence(torch.randn(3, 64, 4), torch.full((64,), 3))
    assert seqcells.LSTM(4, 5).plan(packed).backend == "cpu"
    with torch.no_grad():
        assert seqcells.RNNCell(4, 5).plan(torch.randn(1, 4)).backend == "cpu"
    assert seqcells.RNNCell(4, 5).plan(torch.randn(1, 4)).backend == "torch"


@needs_engine
@pytest.mark.parametrize("backend", ("cpu", "torch", "reference"))
def test_tables_do_not_concern_who_asks_by_name(backend, tables):
    tables(own=[measured(lambda *kind: 2.0 if backend == "cpu" else 0.5)])
    assert backend_of(seqcells.LSTM(4, 16, backend=backend), 32, 3, 4) == backend


@needs_engine
def test_a_stream_is_ours_whatever_single_steps_take(tables):
    tables(own=[measured(lambda *kind: 2.0)])
    layer, input = seqcells.LSTM(4, 16), torch.randn(1, 4)
    stream = layer.stream()
    stream(input)
    assert stream._inference is not None and backend_of(layer, 1, 1, 4) == "torch"


@needs_engine
@pytest.mark.parametrize(("unit", "expected"), ((True, "torch"), (False, "cpu")), ids=("unit", "no unit"))
def test_the_default_in_bfloat16_depends_on_the_machines_unit(unit, expected, monkeypatch, tables):
    monkeypatch.setattr("seqcells.kernels.cpu.refusals.lacks_bfloat16_unit", lambda: not unit)
    for training in (False, True):
        assert backend_of(seqcells.LSTM(4, 5, dtype=torch.bfloat16), 3, 64, 4, training=training) == expected


def test_torch_refuses_projected_input():
    weights = Weights(hh=torch.randn(20, 5))
    with pytest.raises(RuntimeError, match="not its projection gates_x"):
        functional.recurrence(
            REGISTRY["lstm"], torch.randn(3, 2, 20), [torch.zeros(2, 5)] * 2, weights, backend="torch"
        )


def test_default_follows_transforms():
    layer, seen = seqcells.GRU(4, 5), []

    def loss(input):
        seen.append(layer.plan(input))
        return layer(input)[0].sum()

    torch.func.grad(loss)(INPUT)
    assert seen[0].backend == "reference" and "torch.func" in seen[0].reason


def test_a_named_backend_is_the_reason():
    layer = seqcells.LSTM(4, 5, backend="reference")
    assert layer.plan(INPUT) == seqcells.Choice("reference", "asked for by name")


@pytest.mark.parametrize(
    ("module", "input", "words"),
    (
        (seqcells.LSTM(4, 5), torch.randn(50, 16, 4), "by single launch"),
        (seqcells.LSTM(4, 5), torch.randn(2, 16, 4), "by fused step (not single launch: launching each of its steps"),
        (seqcells.LSTM(4, 500), torch.randn(50, 16, 4), "by fused step (not single launch: one multiprocessor does"),
        (seqcells.LSTM(4, 5, batch_first=True), torch.randn(17, 2, 4), "by stepwise (not single launch: "),
        (seqcells.LSTM(4, 5, proj_size=2), INPUT, "by stepwise (not single launch: a projection"),
        (seqcells.GRUCell(4, 5), INPUT[0], "by single step"),
        (seqcells.LSTM(4, 5), torch.randn(1, 129, 4), "by stepwise (not single step: more than 128 sequences"),
    ),
)
def test_a_plan_says_how_triton_would_run_it(module, input, words, kernels_of_a_gpu):
    module.backend = "triton"
    choice = module.plan(input)
    assert choice.backend == "triton" and choice.reason.startswith(f"asked for by name; {words}")


def test_plans_of_a_gpu_that_is_not_nvidias(kernels_of_a_gpu, monkeypatch):
    monkeypatch.setattr("seqcells.kernels.triton.host.configurations.nvidia", lambda: False)
    monkeypatch.setattr("seqcells.kernels.triton.plans.persistent.interpreted", lambda: False)
    reason = seqcells.LSTM(4, 5, backend="triton").plan(torch.randn(50, 16, 4)).reason
    assert "by fused step (not single launch: its grid barrier is written in the assembly of NVIDIA's GPUs" in reason


@pytest.fixture
def hopper(kernels_of_a_gpu, monkeypatch):
    """Pretend to have an H100's multiprocessors."""
    monkeypatch.setattr("seqcells.kernels.triton.host.configurations.processors", lambda device: (132, 227 << 10))


def test_programs_meet_where_it_takes_less_time(hopper):
    layer = seqcells.LSTM(4, 500, backend="triton")
    assert "; by persistent (not single launch: " in layer.plan(torch.randn(50, 16, 4)).reason
    reason = layer.plan(torch.randn(2, 16, 4)).reason
    assert "; by fused step" in reason and "not persistent: launching each of its steps takes less time" in reason
    assert "not persistent: a projection" in seqcells.LSTM(4, 500, proj_size=9, backend="triton").plan(INPUT).reason


def test_programs_that_meet_can_be_switched_off(hopper, monkeypatch):
    layer = seqcells.LSTM(4, 500, backend="triton")
    with seqcells.settings(meeting=False):
        reason = layer.plan(torch.randn(50, 16, 4)).reason
    assert "not persistent: seqcells.settings(meeting=False)" in reason and "; settings: meeting=False" in reason


def test_stacks_of_layers_run_at_once(hopper):
    layer = seqcells.LSTM(4, 300, num_layers=2, backend="triton", dtype=torch.bfloat16)
    reason = layer.plan(torch.randn(50, 16, 4, dtype=torch.bfloat16)).reason
    assert "by persistent" in reason and "by a wavefront, 2 layers at once" in reason


def test_cells_are_found_by_name():
    assert cell_of("gru") is seqcells.cells.GRU
    with pytest.raises(ValueError, match=r"unknown cell 'gpu'.*lstm"):
        cell_of("gpu")


def test_a_plan_takes_what_the_call_takes():
    """The arguments of a call, also those that make no difference to the choice."""
    layer, input, states = seqcells.GRU(3, 4), torch.zeros(5, 2, 3), torch.zeros(1, 2, 4)
    options = {"reset": torch.zeros(5, 2, dtype=torch.bool), "lengths": torch.tensor([5, 3]), "keep": ("h",)}
    layer(input, states, reset_state=states, **options)
    assert layer.plan(input, states, reset_state=states, **options) == layer.plan(input, **options)
    cell = seqcells.GRUCell(3, 4)
    assert cell.plan(torch.zeros(2, 3), torch.zeros(2, 4)) == cell.plan(torch.zeros(2, 3))
    timed = seqcells.define(seqcells.cells.GRUDecay)[0](3, 4, backend="reference")
    assert timed.plan(input, elapsed=torch.ones(5, 2, 1)).backend == "reference"
