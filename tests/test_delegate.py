"""Where torch's own operator fails on this machine, it is tried once, unseen, and then our backend runs by default."""

import sys

import pytest
import torch
from support import assert_equal_to, gradients, layer, results
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence
from torch.utils._python_dispatch import TorchDispatchMode

import seqcells
from seqcells import functional
from seqcells.backends import BACKENDS, torch_ops, torch_trial
from seqcells.call.describe import EXPANDED
from seqcells.kernels import cpu

# The default backend where torch's operator cannot run.
OURS = "reference" if BACKENDS["cpu"].why_not_available() else "cpu"
INPUT = torch.randn(3, 2, 4)


@pytest.fixture
def failing(monkeypatch):
    """Make oneDNN's LSTM in half precision fail under autocast; return the inputs that torch's operator got."""
    asked, (layers, step) = [], torch_ops.OPERATORS["lstm"]

    def lstm(input, *rest):
        asked.append(input)
        padded = isinstance(rest[0], tuple) or len({*rest[0].tolist()}) == 1
        if torch.is_autocast_enabled("cpu") and input.dtype == torch.float32 and padded:
            raise RuntimeError("could not create a primitive\nException raised from somewhere")
        return layers(input, *rest)

    monkeypatch.setitem(torch_ops.OPERATORS, "lstm", (lstm, step))
    torch_trial._failure.cache_clear()
    yield asked
    torch_trial._failure.cache_clear()


def packed(*lengths):
    return pack_padded_sequence(torch.randn(max(lengths), len(lengths), 4), lengths)


def data(output):
    return output.data if isinstance(output, PackedSequence) else output


@pytest.mark.parametrize("training", (False, True), ids=("inference", "training"))
@pytest.mark.parametrize("half", (torch.bfloat16, torch.float16), ids=str)
@pytest.mark.parametrize(
    ("settings", "input"),
    (
        ({}, INPUT),
        ({"bidirectional": True, "num_layers": 2, "bias": False}, INPUT),
        ({"batch_first": True}, INPUT),
        ({}, packed(3, 3)),
    ),
    ids=("plain", "deep", "batch first", "packed"),
)
def test_what_torchs_operator_cannot_run_is_ours(settings, input, half, training, failing, tables):
    layer = seqcells.LSTM(4, 5, **settings)
    with torch.autocast("cpu", half), torch.set_grad_enabled(training):
        choice = layer.plan(input)
        assert choice.backend == OURS
        assert choice.reason == "torch's own operator fails here: could not create a primitive" + (
            "" if OURS == "cpu" else f"; no kernels of ours: {cpu.why_not_available()}"
        )
        asked = len(failing)
        output = data(layer(input)[0])
        assert output.dtype == half and layer.plan(input) == choice
        assert len(failing) == asked == 1, "asked once, of a tiny input"
        assert failing[0].numel() == 16
        layer.backend = "torch"
        with pytest.raises(RuntimeError, match="could not create a primitive"):
            layer(input)
        layer.backend = "reference"
        assert torch.allclose(data(layer(input)[0]).float(), output.float(), atol=0.02)
    if training:
        gradients = torch.autograd.grad(output.float().sum(), [*layer.parameters()])
        assert all(g.dtype == torch.float32 and g.isfinite().all() for g in gradients)


def test_what_torchs_operator_can_run_stays_its_own(failing, tables):
    """Under autocast, it rounds where torch.nn does."""
    half = {"dtype": torch.bfloat16}
    with torch.autocast("cpu", torch.bfloat16):
        for module, input in (
            (seqcells.LSTM(4, 5), packed(3, 2)),
            (seqcells.LSTM(4, 5, **half), INPUT.bfloat16()),
            (seqcells.LSTM(4, 5, proj_size=2), INPUT),
            (seqcells.GRU(4, 5), INPUT),
            (seqcells.LSTMCell(4, 5), INPUT[0]),
            (seqcells.LSTM(4, 5, dtype=torch.float64), INPUT.double()),
        ):
            choice = module.plan(input)
            assert choice.backend == "torch" and ("under autocast" in choice.reason or OURS == "reference")
    assert all(input.dtype == torch.bfloat16 for input in failing)


def test_single_precision_is_not_tried(failing, tables):
    for dtype in (torch.float32, torch.float64):
        seqcells.LSTM(4, 5, dtype=dtype).plan(INPUT.to(dtype))
    assert not failing


@pytest.mark.parametrize("form", ("rows", "transposed", "expanded"))
@pytest.mark.parametrize("name", torch_ops.OPERATORS)
def test_states_may_lie_in_memory_as_they_like(name, form, monkeypatch):
    """As on a GPU, where torch's operator, and torch.nn with it, refuses states that are not contiguous."""
    operator, step = torch_ops.OPERATORS[name]

    def refusing(input, hx, *rest):
        for state in hx if isinstance(hx, tuple) else (hx,):
            assert state.is_contiguous(), "rnn: hx is not contiguous"
        return operator(input, hx, *rest)

    module = layer(name, 4, 5, 2, backend="torch")
    states = {
        "rows": lambda: torch.randn(2, 6, 5)[:, ::3],
        "transposed": lambda: torch.randn(2, 2, 5).transpose(0, 1),
        "expanded": lambda: torch.randn(2, 1, 5).expand(2, 2, 5),
    }
    hx = [states[form]().requires_grad_() for _ in module.cell.states]
    assert not any(state.is_contiguous() for state in hx)
    expected = results(module, INPUT, hx)
    monkeypatch.setitem(torch_ops.OPERATORS, name, (refusing, step))
    found = results(module, INPUT, hx)
    assert_equal_to([*found, *gradients(found, hx)], [*expected, *gradients(expected, hx)])


@pytest.mark.parametrize("watching", (TorchDispatchMode, FakeTensorMode), ids=lambda each: each.__name__)
def test_nobody_sees_what_is_tried(watching, failing, tables):
    seen = []

    class Watching(watching):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            seen.append(str(function))
            return function(*args, **(kwargs or {}))

    layer = seqcells.LSTM(4, 5)
    before = torch.get_rng_state()
    with torch.autocast("cpu", torch.bfloat16), Watching():
        assert layer.plan(INPUT).backend == OURS
    assert len(failing) == 1 and type(failing[0]) is torch.Tensor
    assert not seen and torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("settings", "most"), (({}, 25), ({"num_layers": 2, "bidirectional": True}, 31)), ids=str)
def test_few_functions_of_ours_are_called_around_torchs_operator(settings, most, monkeypatch):
    """Each call takes about half a microsecond. Calls are counted, because other programs disturb a clock."""
    module = seqcells.LSTM(4, 5, **settings)
    states = [torch.zeros(len(module._weights()), 2, 5)] * 2
    monkeypatch.setitem(torch_ops.OPERATORS, "lstm", (lambda *arguments: arguments[1] * 2, None))
    monkeypatch.delitem(sys.modules, EXPANDED, raising=False)  # as long as no transform has been used
    arguments = module.cell, INPUT, states, module._weights()
    options = {"bidirectional": module.bidirectional, "backend": "torch"}
    called = []
    functional.layers(*arguments, **options)
    sys.setprofile(lambda frame, event, _: event == "call" and called.append(frame.f_code.co_name))
    try:
        functional.layers(*arguments, **options)
    finally:
        sys.setprofile(None)
    assert 5 < len(called) <= most, called
