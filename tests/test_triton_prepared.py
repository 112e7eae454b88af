"""Repeated calls of the Triton engine are prepared once and give the results of the first call, with gradients too.

These tests run on a GPU, or where Triton interprets its kernels: the first test runs this file in such a process.
"""

import os
from importlib.util import find_spec
from unittest import mock

import pytest
import torch
from support import as_tuple, assert_equal_to, heavy_if, like_module, plain_if, random_states
from test_triton import run_interpreted

import seqcells
from seqcells.cells import REGISTRY
from seqcells.modules.cell_modules import RecurrentCell
from seqcells.request.recurrence import Recurrence
from seqcells.request.weights import Weights

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
here = pytest.mark.skipif(
    find_spec("triton") is None or not (INTERPRETED or torch.cuda.is_available()),
    reason="there is no triton" if find_spec("triton") is None else "no GPU here, and Triton compiles",
)
if INTERPRETED:
    import concurrent_programs

DEEP = {"num_layers": 2, "bidirectional": True, "batch_first": True}
NAMES = {"LSTM": "lstm", "GRU": "gru", "RNN": "rnn_tanh"}
TIMES = 4
PLAIN = ("GRU", {}), ("LSTM", DEEP)


@pytest.mark.skipif(INTERPRETED, reason="this is the child process")
@pytest.mark.skipif(find_spec("triton") is None, reason="there is no triton")
def test_in_a_process_that_interprets():
    run_interpreted("test_triton_prepared.py -m 'not heavy'")


@pytest.mark.heavy
@pytest.mark.skipif(INTERPRETED, reason="this is the child process")
@pytest.mark.skipif(find_spec("triton") is None, reason="there is no triton")
def test_the_rest_in_a_process_that_interprets():
    run_interpreted("test_triton_prepared.py -m 'heavy and not exhaustive'")


def problem(kind, sizes, given, dtype=torch.float64, cell=False, backend="triton", **options):
    """A module, its input and states, all with gradients."""
    module = getattr(seqcells, kind + ("Cell" if cell else ""))
    module = module(5, 7, backend=backend, dtype=dtype, device=DEVICE, **options)
    like = {"dtype": dtype, "device": DEVICE}
    steps, batch = sizes
    shape = (batch,) if cell else (batch, steps) if module.batch_first else sizes
    input = torch.randn(*shape, 5, **like, requires_grad=True)
    count = () if cell else (module.num_layers * (2 if module.bidirectional else 1),)
    states = random_states(NAMES[kind], *count, batch, 7, **like) if given else []
    return module, input, [state.requires_grad_() for state in states]


def everything(module, input, states, leaves=None):
    """Outputs of one call, and its gradients where grad mode is enabled."""
    found = module(input, like_module(states) if states else None)
    outputs = [*as_tuple(found)] if isinstance(module, RecurrentCell) else [found[0], *as_tuple(found[1])]
    if not torch.is_grad_enabled():
        return outputs
    total = sum((o * torch.arange(o.numel(), device=DEVICE, dtype=o.dtype).view(o.shape).cos()).sum() for o in outputs)
    leaves = [input, *states, *module.parameters()] if leaves is None else leaves
    return [*outputs, *torch.autograd.grad(total, leaves, allow_unused=True, materialize_grads=True)]


def check(module, input, states, tolerance=1e-12):
    """All calls give the same bits, and agree with the reference."""
    calls = [everything(module, input, states) for _ in range(TIMES)]
    assert module._prepared.has(torch.is_grad_enabled())
    module.backend = "reference"
    truth = everything(module, input, states)
    module.backend = "triton"
    for found in calls:
        assert_equal_to(found, truth, tolerance)
        # the interpreter makes some products of a first call in float64
        if input.dtype == torch.float64 or not INTERPRETED:
            assert_equal_to(found, calls[0], 0)


@here
@heavy_if(lambda kind, **_: kind != "RNN")
@plain_if(lambda kind, options, given, gradients, **_: given and gradients and (kind, options) in PLAIN)
@pytest.mark.parametrize("gradients", (False, True), ids=("", "gradients"))
@pytest.mark.parametrize("given", (False, True), ids=("zeros", "states"))
@pytest.mark.parametrize("options", ({}, DEEP, {"bias": False, "num_layers": 2}), ids=("", "deep", "unbiased"))
@pytest.mark.parametrize("sizes", ((1, 3), (4, 3)), ids=("step", "sequence"))
@pytest.mark.parametrize("kind", NAMES)
def test_layers(kind, sizes, options, given, gradients):
    with torch.set_grad_enabled(gradients):
        check(*problem(kind, sizes, given, **options))


@here
@heavy_if(lambda kind, **_: kind != "RNN")
@plain_if(lambda kind, given, gradients: given and gradients and kind == "LSTM")
@pytest.mark.parametrize("gradients", (False, True), ids=("", "gradients"))
@pytest.mark.parametrize("given", (False, True), ids=("zeros", "states"))
@pytest.mark.parametrize("kind", NAMES)
def test_cells(kind, given, gradients):
    with torch.set_grad_enabled(gradients):
        check(*problem(kind, (1, 3), given, cell=True))


@here
@plain_if(lambda dtype, sizes: dtype == torch.bfloat16 and sizes[0] > 1)
@pytest.mark.parametrize("sizes", ((1, 3), (4, 3)), ids=("step", "sequence"))
@pytest.mark.parametrize("dtype", (torch.float32, torch.float16, torch.bfloat16), ids=str)
def test_narrow_numbers(dtype, sizes):
    with seqcells.settings(precision="ieee"):
        check(*problem("LSTM", sizes, True, dtype), tolerance=16 * torch.finfo(dtype).eps)


@here
@plain_if(lambda sizes, which: which == "all but the input")
@pytest.mark.parametrize("which", ("input", "weights", "states", "all but the input"))
@pytest.mark.parametrize("sizes", ((1, 3), (4, 3)), ids=("step", "sequence"))
def test_gradients_that_nobody_wants_are_not_made(sizes, which):
    module, input, states = problem("GRU", sizes, True)
    input.requires_grad_(which == "input")
    module.requires_grad_(which in ("weights", "all but the input"))
    states[0].requires_grad_(which in ("states", "all but the input"))
    leaves = [t for t in (input, *states, *module.parameters()) if t.requires_grad]
    found = [everything(module, input, states, leaves) for _ in range(TIMES)]
    assert module._prepared.has(gradients=True)
    module.backend = "reference"
    assert_equal_to(found[-1], everything(module, input, states, leaves))


@here
@pytest.mark.skipif(not INTERPRETED, reason="several programs on one interpreter: a GPU has its own")
def test_programs_that_meet(monkeypatch):
    """Each program is a process, in both passes: three for the hidden units, and as many for the second direction."""
    from seqcells.kernels.triton.host import configurations

    def division(hidden, batch, directions, gates, recurrent, planes, storage, *rest):
        size = {"units": 16, "rows": 16, "groups": 2, "directions": directions, "parts": 2, "chunk": 32}
        return configurations.division(hidden, recurrent, planes, storage, **size)

    monkeypatch.setattr(configurations, "persistent", division)
    monkeypatch.setattr("seqcells.kernels.triton.plans.persistent.why_not_faster", lambda shape: None)
    module = seqcells.LSTM(5, 37, bidirectional=True, backend="triton", dtype=torch.float64)
    input = torch.randn(3, 2, 5, dtype=torch.float64, requires_grad=True)
    for _ in range(2):
        # First calls, whose results are not used.
        with mock.patch("seqcells.kernels.triton.host.launch.Launch.__call__"):
            everything(module, input, [])
    assert module._prepared.has(gradients=True)
    with concurrent_programs.concurrent() as launched:
        found = everything(module, input, [])
    assert launched == [6, 6]
    module.backend = "reference"
    assert_equal_to(found, everything(module, input, []))


@here
def test_an_output_that_came_back_in_other_memory():
    """The memory around a layer's output is read where the output was made, and is rebuilt if a hook returns a copy."""
    module, input, states = problem("LSTM", (4, 3), True, bidirectional=True)
    first = [everything(module, input, states) for _ in range(3)][-1]
    output, _ = module(input, like_module(states))
    assert output.storage_offset() > 0 and output._base is None, "nobody's view"
    saved = torch.autograd.graph.saved_tensors_hooks(lambda t: t.clone(), lambda t: t)
    with mock.patch("seqcells.call.fast_path._are_hooks_there", lambda: False), saved:
        again = everything(module, input, states)
    assert_equal_to(again, first)


@here
def test_a_stream_is_one_launch_a_step():
    layer = seqcells.GRU(5, 7, num_layers=2, backend="triton", dtype=torch.float64, device=DEVICE)
    input = torch.randn(5, 3, 5, dtype=torch.float64, device=DEVICE)
    stream = layer.stream(3)
    with torch.no_grad():
        expected, _ = layer(input)
        found = torch.stack([stream(step).clone() for step in input])
    assert_equal_to([found], [expected])


@here
def test_what_is_prepared_keeps_nothing_of_the_callers():
    import gc
    import weakref

    module, input, states = problem("LSTM", (4, 3), True)
    for _ in range(TIMES):
        everything(module, input, states)
    seen = [weakref.ref(tensor) for tensor in (input, *states, module.weight_hh_l0)]
    module.weight_hh_l0 = torch.nn.Parameter(module.weight_hh_l0.detach().clone())
    del input, states
    gc.collect()
    assert [ref() for ref in seen] == [None] * len(seen)


class Compiled:
    def __getitem__(self, grid):
        return lambda *arguments: None


@pytest.mark.skipif(INTERPRETED, reason="of compiled kernels")
@pytest.mark.skipif(find_spec("triton") is None, reason="there is no triton")
@pytest.mark.parametrize("steps", (1, 64))
@pytest.mark.parametrize("kind", ("lstm", "gru"))
def test_what_is_prepared_is_compiled_for_what_calls_bring(kind, steps, monkeypatch):
    """Before tensors exist, kernels are compiled for the tensors' types and alignments, also for each tensor in
    tuples."""
    from triton.runtime.jit import JITFunction

    from benchmarks.resources.launches import TARGETS, recorded
    from seqcells.kernels.triton import engine

    cell, roles = REGISTRY[kind], Weights.roles(REGISTRY[kind], True, False)

    def empty(*shape):
        return torch.empty(shape, dtype=torch.bfloat16, device="meta")

    w = Weights.of(roles, [empty(*Weights.shape(role, cell, 512, 512, 0)) for role in roles])
    q = Recurrence(cell, None, [empty(1, 16, 512) for _ in cell.states], [w], input=empty(steps, 16, 512))
    with recorded(TARGETS["sm_90"]) as brought:
        engine.forward(q, True)
    with recorded(TARGETS["sm_90"]) as prepared:
        record = JITFunction._do_compile
        monkeypatch.setattr(JITFunction, "_do_compile", lambda *a, **k: record(*a, **k) or Compiled())
        wanted = q.replaced([True] * len(q.differentiable()))
        assert engine.Training([q], [wanted], batch_first=False, zeros=False, reads_output=True).in_place
    (mine,), theirs = brought, next(each for each in prepared if each.function is brought[0].function)
    assert theirs.signature == mine.signature and theirs.attributes == mine.attributes
    assert theirs.options == mine.options
    led = (mine.function.arg_names.index("led"),) if steps > 1 else None
    assert {place for place in mine.constants if mine.constants[place] != theirs.constants[place]} == {led} - {None}


@here
@pytest.mark.parametrize(
    ("kind", "shape", "options"),
    (
        ("GRU", (1, 4), {"batch_first": True}),
        ("LSTM", (2, 1), {"batch_first": True, "bidirectional": True}),
        ("LSTM", (4,), {"bidirectional": True}),
        ("GRU", (1,), {"num_layers": 2}),
        ("LSTM", (), {"cell": True}),
        ("LSTM", (1, 2), {"backend": "triton-persistent"}),
    ),
    ids=str,
)
def test_whatever_axes_its_tensors_lack_or_have_of_one(kind, shape, options):
    module, input, states = problem(kind, (1, 1), True, **options)
    batch = () if len(shape) < 2 else (shape[0] if options.get("batch_first") else shape[1],)
    input = torch.randn(*shape, 5, dtype=torch.float64, device=DEVICE, requires_grad=True)
    sizes = [(*state.shape[:-2], *batch, 7) for state in states]
    states = [torch.randn(size, dtype=torch.float64, device=DEVICE, requires_grad=True) for size in sizes]
    calls = [everything(module, input, states) for _ in range(TIMES)]
    assert module._prepared.has(gradients=True)
    module.backend = "reference"
    truth = everything(module, input, states)
    for found in calls:
        assert_equal_to(found, truth)


@here
@pytest.mark.parametrize("which", (0, 1))
@pytest.mark.parametrize("sizes", ((1, 3), (4, 3)), ids=("step", "sequence"))
def test_a_state_of_two_that_wants_a_gradient(sizes, which):
    module, input, states = problem("LSTM", sizes, True)
    states[which].requires_grad_(False)
    leaves = [input, states[1 - which], *module.parameters()]
    found = [everything(module, input, states, leaves) for _ in range(TIMES)]
    assert module._prepared.has(gradients=True)
    module.backend = "reference"
    assert_equal_to(found[-1], everything(module, input, states, leaves))
