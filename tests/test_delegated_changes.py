"""A change between two calls of torch's operator takes effect at once: weights, module, and conditions of the
choice."""

import copy
import itertools

import pytest
import torch
import torch.nn.utils.prune as prune
from delegations import NAMED, TIMES, everything, flat, prepare, same, states_for
from modules import IN, H, N, T, both, example, make
from support import gradients
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm
from torch.nn.utils.parametrize import remove_parametrizations

import seqcells
from seqcells.backends import BACKENDS, torch_ops, torch_trial
from seqcells.kernels import cpu
from seqcells.measured import estimates
from seqcells.measured.table import Point, Table

needs_engine = pytest.mark.skipif(bool(cpu.why_not_available()), reason="the CPU engine is not here")


def _hook(module):
    module.register_forward_hook(lambda m, inputs, found: (found[0] * 2, found[1]))


def _twice(module):
    weight_norm(module, "weight_hh_l0")
    remove_parametrizations(module, "weight_hh_l0")


CHANGES = {
    "in place": lambda m: m.weight_hh_l0.data.mul_(2),
    "data": lambda m: setattr(m.weight_hh_l0, "data", m.weight_hh_l0.data * 2),
    "transposed": lambda m: setattr(m.weight_hh_l0, "data", m.weight_hh_l0.data.t()),
    "parameter": lambda m: setattr(m, "weight_ih_l0", nn.Parameter(m.weight_ih_l0.detach() * 2)),
    "by name": lambda m: (
        m._parameters.__setitem__("bias_ih_l0", nn.Parameter(m.bias_ih_l0.detach() + 1)) or m._init_flat_weights()
    ),
    "loaded": lambda m: m.load_state_dict({k: v * 2 for k, v in m.state_dict().items()}),
    "assigned": lambda m: m.load_state_dict({k: v * 2 for k, v in m.state_dict().items()}, assign=True),
    "parametrized": lambda m: weight_norm(m, "weight_hh_l0"),
    "parametrized with a buffer": lambda m: spectral_norm(m.eval(), "weight_hh_l0"),
    "parametrized and back": _twice,
    "pruned": lambda m: prune.l1_unstructured(m, "weight_hh_l0", 0.5),
    "tied": lambda m: setattr(m, "weight_hh_l1", m.weight_hh_l0),
    "in the flat weights": lambda m: m._flat_weights.__setitem__(1, m.weight_hh_l0.detach() * 2),
    "hook": _hook,
    "converted": lambda m: m.double(),
    "frozen": lambda m: m.requires_grad_(False),
    "eval": lambda m: m.eval(),
    "batch first": lambda m: setattr(m, "batch_first", True),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("training", (False, True), ids=("inference", "training"))
def test_a_change_counts_at_once(change, training):
    pair = both("RNN", {"num_layers": 2})
    theirs, ours = pair
    ours.backend = "torch"
    # A square input, and as many sequences as steps: no size reveals a change.
    for module in pair:
        for _ in range(TIMES):
            module(example(module)[:N]), everything(module, example(module)[:N], [], training)
    assert ours._prepared.has(training)
    found = []
    for module in pair:
        torch.manual_seed(0)
        change(module)
        input = example(theirs)[:N]
        found.append([everything_that_is(module, input, training) for _ in range(TIMES)])
    for their, our in zip(*found, strict=True):
        same(our, their)


def everything_that_is(module, input, training):
    leaves = [p for p in module.parameters() if p.requires_grad]
    with torch.set_grad_enabled(training):
        outputs = flat(module(input))
    differentiable = [o for o in outputs if o.requires_grad]
    return outputs + (gradients(differentiable, leaves) if differentiable and leaves else [])


@pytest.mark.parametrize("tie", (False, True), ids=("apart", "tied"))
def test_weights_that_are_one_and_no_more(tie):
    pair = both("RNN", {"num_layers": 2, "bias": False})
    for module in pair:
        module.backend = "torch"
        if tie:
            module.weight_hh_l1 = module.weight_hh_l0
        for _ in range(TIMES):
            everything(module, example(module), [], True)
        module.weight_hh_l1 = module.weight_hh_l0 if not tie else nn.Parameter(module.weight_hh_l0.detach() + 1)
    theirs, ours = ([everything(module, example(module), [], True) for _ in range(TIMES)] for module in pair)
    for their, our in zip(theirs, ours, strict=True):
        same(our, their)


def test_training_mode_and_dropout():
    """Dropout is drawn and cuDNN's mode is set by each call's own training mode, not by an earlier one."""
    theirs, ours = both("GRU", {"num_layers": 2})
    ours.backend = "torch"
    for dropout, mode in itertools.product((0.0, 0.5, 0.0), (True, False)):
        for module in (theirs, ours):
            module.train(mode).dropout = dropout
        for _ in range(TIMES):
            results = []
            for module in (theirs, ours):
                torch.manual_seed(0)
                results.append(everything(module, example(module), [], True))
            same(results[1], results[0])


@pytest.mark.parametrize("mode", (True, False), ids=("train", "eval"))
def test_the_operator_is_told_the_mode(mode, monkeypatch):
    """cuDNN keeps what backward needs only in training mode, so a call with gradients in eval mode needs that mode
    too."""
    told, operator = [], torch_ops.OPERATORS["gru"][0]
    monkeypatch.setitem(torch_ops.OPERATORS, "gru", (lambda *a: (told.append(a[6]), operator(*a))[1], None))
    module = make(seqcells, "GRU", NAMED)
    for each in (not mode, mode):
        module.train(each)
        for gradients_wanted in (True, False):
            with torch.set_grad_enabled(gradients_wanted):
                told.clear()
                for _ in range(TIMES):
                    module(example(module))
                assert told == [each or gradients_wanted] * TIMES


@pytest.mark.parametrize("name", ("input_size", "hidden_size", "num_layers", "bidirectional", "proj_size", "bias"))
def test_attributes_that_torch_nn_reads(name):
    """A module that never prepared a call gives the expected error or result of a prepared module."""

    def change(module):
        setattr(module, name, not getattr(module, name) if name in ("bidirectional", "bias") else 3)
        return module

    module, hx = make(seqcells, "LSTM", NAMED), states_for(make(nn, "LSTM", {}))
    fresh = change(copy.deepcopy(module))

    def outcome(module):
        try:
            return flat(module(example(module), tuple(hx)))
        except Exception as error:
            return type(error), str(error)

    expected = outcome(fresh)
    for _ in range(TIMES):
        outcome(module)
    assert module._prepared.has(gradients=True)
    change(module)
    for _ in range(TIMES):
        found = outcome(module)
        assert type(found) is type(expected)
        same(found, expected) if isinstance(found, list) else None
        assert isinstance(found, list) or found == expected


def _replaced(name, value):
    def change(module):
        module.bias = False  # satisfies our check of missing weights
        setattr(module, name, value)

    return change


@pytest.mark.parametrize(
    ("kind", "changes"),
    (
        ("RNNCell", [_replaced("nonlinearity", "relu"), _replaced("nonlinearity", "tanh")]),
        ("GRUCell", [_replaced("bias_ih", None), _replaced("bias_ih", nn.Parameter(torch.ones(3 * H)))]),
        ("GRUCell", [_replaced("bias_hh", None), _replaced("bias_ih", None)]),
    ),
    ids=("nonlinearity", "hidden bias alone", "input bias alone"),
)
def test_what_a_cell_may_have(kind, changes):
    theirs, ours = both(kind, {})
    ours.backend = "torch"
    for change in (lambda module: None, *changes):
        found = []
        for module in (theirs, ours):
            change(module)
            found.append([everything(module, example(module), [], True) for _ in range(TIMES)])
        for their, our in zip(*found, strict=True):
            same(our, their)


def test_another_backend_counts_at_once():
    module = prepare(make(seqcells, "GRU", NAMED).double())
    expected = module.to_torch()(example(module))[0]
    for backend in ("reference", "torch", "auto"):
        module.backend = backend
        for _ in range(TIMES):
            assert torch.allclose(module(example(module))[0], expected)
    with pytest.raises(ValueError, match="unknown backend"):
        module.backend = "nothing"
        module(example(module))


def test_what_is_wrong_is_told_as_ever():
    module = prepare(make(seqcells, "LSTM", NAMED), states=states_for(make(nn, "LSTM", {})), training=True)
    fresh = make(seqcells, "LSTM", NAMED)
    h, c = states_for(fresh)
    for input, hx in (
        (example(module), (h, c, c)),
        (example(module), (h,)),
        (example(module), h),
        (example(module), 5),
        (example(module), (h[:, :1], c)),
        (example(module)[..., :2], (h, c)),
        (example(module).double(), (h, c)),
        (example(module)[:0], (h, c)),
    ):
        with pytest.raises(Exception) as expected:
            fresh(input, hx)
        for _ in range(TIMES):
            with pytest.raises(expected.type) as found:
                module(input, hx)
            assert str(found.value) == str(expected.value)


# What the choice depends on.


def measured(name="one", threads=1, ours=2.0, rows=N):
    """A table of this machine: our engine takes ``ours`` times as long as torch's operator."""
    points = {
        Point("gru", "layers", training, "float32", T, rows, H): {"torch": 1.0, "cpu": ours}
        for training in (False, True)
    }
    head = {"processor": "", "versions": {}, "date": "2026-11-27", "commit": "", "source": "a test", "complete": True}
    return Table("avx2-l2-512k", threads=threads, points=points, name=name, **head)


@pytest.fixture
def backend_of(monkeypatch):
    """A function that returns the backend of a module's call, prepared or not."""
    asked, (operator, step) = [], torch_ops.OPERATORS["gru"]
    monkeypatch.setitem(torch_ops.OPERATORS, "gru", (lambda *a: (asked.append(a), operator(*a))[1], step))

    def call(module):
        asked.clear()
        module(example(module))
        return "torch" if asked else "cpu"

    return call


@needs_engine
@pytest.mark.parametrize("training", (False, True), ids=("inference", "training"))
def test_a_choice_for_some_threads_is_not_others(training, tables, threads, backend_of):
    tables(own=[measured("one", 1, ours=2.0), measured("two", 2, ours=0.5)])
    module = make(seqcells, "GRU", {})
    with torch.set_grad_enabled(training):
        for count in (1, 2, 1, 1, 2):
            threads(count)
            backend = "torch" if count == 1 else "cpu"
            assert module.plan(example(module)).backend == backend
            for _ in range(TIMES):
                assert backend_of(module) == backend


@needs_engine
def test_new_tables_choose_anew(tables, backend_of):
    tables(own=[measured(ours=2.0)])
    module = prepare(make(seqcells, "GRU", {}))
    with torch.no_grad():
        assert backend_of(module) == "torch"
        tables(own=[measured(ours=0.5)])
        for _ in range(TIMES):
            assert backend_of(module) == "cpu"


def test_named_backends_ask_for_no_table(monkeypatch, tables):
    module = prepare(make(seqcells, "GRU", NAMED))
    monkeypatch.setattr(estimates, "leader", lambda call: pytest.fail("asked"))
    everything(module, example(module), [], False)


def test_torchs_switch_for_one_dnn_counts_at_once(monkeypatch, tables):
    """Without a half-precision LSTM in oneDNN, and without kernels of this package."""
    operator, step = torch_ops.OPERATORS["lstm"]

    def lstm(*arguments):
        if torch.backends.mkldnn.enabled:
            raise RuntimeError("could not create a primitive")
        return operator(*arguments)

    gone = BACKENDS["cpu"]._replace(why_not_available=lambda: "not built")
    monkeypatch.setitem(BACKENDS, "cpu", gone)
    monkeypatch.setitem(torch_ops.OPERATORS, "lstm", (lstm, step))
    torch_trial._failure.cache_clear()
    module = seqcells.LSTM(IN, H, dtype=torch.bfloat16)
    try:
        with torch.no_grad():
            for enabled in (False, True, False):
                with torch.backends.mkldnn.flags(enabled=enabled):
                    assert module.plan(example(module)).backend == ("reference" if enabled else "torch")
                    for _ in range(TIMES):
                        assert module(example(module))[0].isfinite().all()
                    assert enabled or module._prepared.has(gradients=False)
    finally:
        torch_trial._failure.cache_clear()


def test_without_one_dnn_numbers_are_torch_nns():
    theirs, ours = both("LSTM", {})
    ours.backend = "torch"
    for enabled in (True, False, True):
        with torch.backends.mkldnn.flags(enabled=enabled):
            expected = everything(theirs, example(theirs), [], True)
            for _ in range(TIMES):
                same(everything(ours, example(ours), [], True), expected)
