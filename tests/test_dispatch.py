"""The choice of a backend: named ones run or say why not, the default gives its reason."""

import pytest
import torch

import seqcells
from seqcells import dispatch, functional
from seqcells.cells import REGISTRY
from seqcells.kernels import cpu
from seqcells.weights import Weights

# What the default takes where torch has no operator.
OURS = "reference" if dispatch.BACKENDS["cpu"].unavailable() else "cpu"
TO_COME = [name for name, entry in dispatch.BACKENDS.items() if entry.unavailable()]
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
def test_torch_refuses_what_its_operators_lack(kwargs, why):
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


@pytest.mark.skipif(OURS == "reference", reason="the CPU engine is not built")
def test_the_default_takes_the_cpu_engine_where_it_leads():
    for layer, rows, training, expected in (
        (seqcells.LSTM(4, 5), 1, True, "cpu"),
        (seqcells.LSTM(4, 5), 8, True, "torch"),
        (seqcells.LSTM(4, 256), 64, True, "torch"),
        (seqcells.LSTM(4, 5), 32, False, "cpu"),
        (seqcells.LSTM(4, 256), 64, False, "torch"),
        (seqcells.LSTM(4, 5, dtype=torch.bfloat16), 8, False, "cpu"),
        (seqcells.LSTM(4, 5, dtype=torch.float16), 1, False, "torch"),
        (seqcells.LSTM(4, 5, dtype=torch.float64), 64, True, "cpu"),
        (seqcells.GRU(4, 5), 64, True, "cpu"),
        (seqcells.RNN(4, 5, batch_first=True), 64, True, "cpu"),
    ):
        shape = (rows, 3, 4) if layer.batch_first else (3, rows, 4)
        with torch.set_grad_enabled(training):
            assert layer.plan(torch.randn(shape, dtype=layer.weight_ih_l0.dtype)).backend == expected
    assert seqcells.GRU(4, 5).plan(torch.randn(1, 1, 4)).backend == "torch"
    assert seqcells.LSTM(4, 5).plan(torch.randn(1, 1, 4)).backend == "cpu"
    with torch.no_grad():
        for layer in (seqcells.LSTM(4, 5), seqcells.GRU(4, 5)):
            assert layer.plan(torch.randn(1, 64, 4)).backend == "cpu"
        assert seqcells.GRUCell(4, 5).plan(torch.randn(1, 4)).backend == "cpu"
    assert seqcells.GRUCell(4, 5).plan(torch.randn(1, 4)).backend == "torch"
    packed = torch.nn.utils.rnn.pack_padded_sequence(torch.randn(3, 64, 4), torch.full((64,), 3))
    assert seqcells.LSTM(4, 5).plan(packed).backend == "cpu"


@pytest.mark.skipif(OURS == "reference", reason="the CPU engine is not built")
@pytest.mark.parametrize(("unit", "expected"), ((True, "torch"), (False, "cpu")), ids=("unit", "no unit"))
def test_the_default_in_bfloat16_depends_on_the_machines_unit(unit, expected, monkeypatch):
    monkeypatch.setattr(cpu, "lacks_bfloat16_unit", lambda: not unit)
    for training in (False, True):
        with torch.set_grad_enabled(training):
            layer = seqcells.LSTM(4, 5, dtype=torch.bfloat16)
            assert layer.plan(torch.randn(3, 64, 4, dtype=torch.bfloat16)).backend == expected


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


@pytest.fixture
def would_run(monkeypatch):
    """As if a GPU were here: asked how Triton would run a call, it says so."""
    pytest.importorskip("triton")
    possible = dispatch.BACKENDS["triton"]._replace(unavailable=lambda: None, refuses=lambda call: None)
    monkeypatch.setitem(dispatch.BACKENDS, "triton", possible)
    monkeypatch.setattr("seqcells.kernels.triton.configurations.nvidia", lambda: True)


@pytest.mark.parametrize(
    ("module", "input", "words"),
    (
        (seqcells.LSTM(4, 5), torch.randn(50, 16, 4), "by single launch"),
        (seqcells.LSTM(4, 5), torch.randn(2, 16, 4), "by fused step (not single launch: launching each of its steps"),
        (seqcells.LSTM(4, 500), torch.randn(50, 16, 4), "by fused step (not single launch: one multiprocessor does"),
        (seqcells.LSTM(4, 5, batch_first=True), torch.randn(17, 2, 4), "by stepwise (not single launch: "),
        (seqcells.LSTM(4, 5, proj_size=2), INPUT, "by stepwise (not single launch: a projection"),
        (seqcells.GRUCell(4, 5), INPUT[0], "by fused step"),
    ),
)
def test_a_plan_says_how_triton_would_run_it(module, input, words, would_run):
    module.backend = "triton"
    choice = module.plan(input)
    assert choice.backend == "triton" and choice.reason.startswith(f"asked for by name; {words}")


def test_plans_of_a_gpu_that_is_not_nvidias(would_run, monkeypatch):
    monkeypatch.setattr("seqcells.kernels.triton.configurations.nvidia", lambda: False)
    monkeypatch.setattr("seqcells.kernels.triton.persistent.interpreted", lambda: False)
    reason = seqcells.LSTM(4, 5, backend="triton").plan(torch.randn(50, 16, 4)).reason
    assert "by fused step (not single launch: its kernels are for NVIDIA's GPUs" in reason


@pytest.fixture
def hopper(would_run, monkeypatch):
    """An H100's multiprocessors."""
    monkeypatch.setattr("seqcells.kernels.triton.persistent._processors", lambda device: (132, 227 << 10))


def test_programs_meet_where_it_takes_less_time(hopper):
    layer = seqcells.LSTM(4, 500, backend="triton")
    assert "; by persistent (not single launch: " in layer.plan(torch.randn(50, 16, 4)).reason
    reason = layer.plan(torch.randn(2, 16, 4)).reason
    assert "; by fused step" in reason and "not persistent: launching each of its steps takes less time" in reason
    assert "not persistent: a projection" in seqcells.LSTM(4, 500, proj_size=9, backend="triton").plan(INPUT).reason


def test_programs_that_meet_can_be_switched_off(hopper, monkeypatch):
    monkeypatch.setattr("seqcells.kernels.triton.configurations.meeting", False)
    layer = seqcells.LSTM(4, 500, backend="triton")
    assert "not persistent: configurations.meeting is off" in layer.plan(torch.randn(50, 16, 4)).reason


def test_stacks_of_layers_run_at_once(hopper):
    layer = seqcells.LSTM(4, 300, num_layers=2, backend="triton", dtype=torch.bfloat16)
    reason = layer.plan(torch.randn(50, 16, 4, dtype=torch.bfloat16)).reason
    assert "by persistent" in reason and "by a wavefront, 2 layers at once" in reason


@pytest.mark.parametrize(
    ("dtype", "sizes", "expected"),
    (
        (torch.bfloat16, (100, 16, 512), None),
        (torch.float32, (100, 16, 512), None),
        (torch.float16, (100, 64, 512), None),
        (torch.bfloat16, (16, 16, 512), "fewer than 32 steps"),
        (torch.float32, (100, 16, 128), "a kernel of its own"),
        (torch.float16, (100, 16, 256), "a kernel of its own"),
        (torch.bfloat16, (100, 128, 1024), "its products take less time"),
        (torch.bfloat16, (100, 16, 1600), "backward does not fit on the chip"),
        (torch.bfloat16, (100, 16, 3000), "launched for each step too"),
        (torch.float64, (100, 16, 512), "was not compared"),
    ),
    ids=str,
)
def test_against_cudnn(dtype, sizes, expected, hopper):
    """For a GPU's tensors, of which only the shapes are here."""
    steps, batch, hidden = sizes
    shape = {"rows": batch, "steps": steps, "hidden": hidden, "width": hidden}
    call = dispatch.Call(REGISTRY["lstm"], "layers", torch.device("cuda"), dtype, **shape)
    choice = dispatch.choose(call)
    assert choice.backend == ("triton" if expected is None else "torch")
    assert (expected or "one launch for all steps") in choice.reason
    packed = dispatch.choose(call._replace(options=("packed",)))
    assert packed.backend == "torch" and "was not compared" in packed.reason


def test_cells_are_found_by_name():
    assert dispatch.cell("gru") is seqcells.cells.GRU
    with pytest.raises(ValueError, match=r"unknown cell 'gpu'.*lstm"):
        dispatch.cell("gpu")
