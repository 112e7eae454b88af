"""Streams: single steps give the sequence's results, in the layer's own layout, and streams can be copied."""

import copy
import pickle

import pytest
import torch
from support import MAIN, TORCH_LAYERS, as_tuple, assert_equal_to, layer, like_module, plain_if, random_states
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode

import seqcells
from seqcells.cells import REGISTRY
from seqcells.kernels import cpu

if cpu.why_not_available():
    pytest.skip(f"the CPU engine is not here: {cpu.why_not_available()}", allow_module_level=True)

LIKE = {"dtype": torch.float64}


@plain_if(lambda name, batch, options, **_: name in MAIN or (batch == 3 and options))
@pytest.mark.parametrize("options", ({}, {"num_layers": 3, "batch_first": True}), ids=("plain", "deep"))
@pytest.mark.parametrize("backend", ("cpu", "reference", "auto"))
@pytest.mark.parametrize("batch", (1, 3, 20))
@pytest.mark.parametrize("name", REGISTRY)
def test_a_stream_equals_the_sequence(name, batch, backend, options):
    module = layer(name, 5, 7, backend=backend, **options, **LIKE)
    input = torch.randn(6, batch, 5, **LIKE)
    states = random_states(name, module.num_layers, batch, 7, **LIKE)
    stream = module.stream(batch)
    stream.state = like_module(states)
    outputs = torch.stack([stream(x).clone() for x in input])
    whole = input.transpose(0, 1) if module.batch_first else input
    output, final = module(whole, like_module(states))
    output = output.transpose(0, 1) if module.batch_first else output
    assert_equal_to([outputs, *as_tuple(stream.state)], [output.detach(), *(f.detach() for f in as_tuple(final))])
    rows = torch.arange(batch) % 2 == 0
    stream.reset(rows)
    for state in as_tuple(stream.state):
        assert not state[:, rows].any() and (batch == 1 or state[:, ~rows].any())


def test_a_stream_follows_what_its_layer_would_do(threads):
    module, input = layer("lstm", 16, 64, backend="cpu"), torch.randn(9, 1, 16)
    stream = module.stream()

    def found():
        stream.reset()
        return torch.stack([stream(x).clone() for x in input])

    expected = found()
    for count in (2, 1):
        threads(count)
        assert torch.equal(found(), expected) and stream._inference.call._made_for[0] == count
    module.backend = "reference"
    assert_equal_to([found()], [expected], 1e-5)
    assert stream._inference is None
    module.backend, cell = "cpu", module.cell
    assert torch.equal(found(), expected)
    module.cell = REGISTRY["cifg"]
    with pytest.raises(RuntimeError):
        found()
    module.cell = cell
    assert torch.equal(found(), expected)


@pytest.mark.parametrize("ago", (1, 2))
def test_a_stream_may_be_given_what_it_gave(ago):
    """The output of two steps before has the memory of the next output."""
    module = layer("lstm", 300, 300, backend="cpu")
    streams, inputs = [module.stream(), module.stream()], list(torch.randn(2, 1, 300))
    for step in range(6):
        given = inputs[-ago]
        outputs = [stream(x) for stream, x in zip(streams, (given, given.clone()), strict=True)]
        assert torch.equal(*outputs), step
        inputs.append(outputs[0])


def test_a_stream_drops_out_what_its_layer_drops_out():
    module, input = layer("lstm", 4, 64, 2, dropout=0.9, backend="cpu"), torch.randn(1, 4)
    stream = module.stream()
    first, second = stream(input).clone(), (stream.reset(), stream(input).clone())[1]
    assert not torch.equal(first, second)
    module.eval()
    found = [(stream.reset(), stream(input).clone())[1] for _ in range(2)]
    with torch.no_grad():
        assert_equal_to(found, [module(input.unsqueeze(0))[0][0]] * 2, 1e-6)
    assert stream._inference is not None


def test_a_stream_after_a_step_that_failed(threads):
    module, input = layer("lstm", 4, 8, backend="cpu", **LIKE), torch.randn(3, 1, 4, **LIKE)
    stream, untroubled = module.stream(), module.stream()
    expected = [untroubled(x).clone() for x in input]
    found = [stream(input[0]).clone()]
    state = [s.clone() for s in stream.state]
    module.backend = "triton-persistent"
    with pytest.raises(RuntimeError, match="triton-persistent"):
        stream(input[1])
    assert all(map(torch.equal, stream.state, state))
    with pytest.raises(RuntimeError, match="triton-persistent"):
        stream(input[1])
    module.backend = "cpu"
    threads(2)
    found += [stream(x).clone() for x in input[1:]]
    assert_equal_to(found, expected)
    assert stream._inference.call.still_valid() and (threads(1), not stream._inference.call.still_valid())[1]


def _doubled(results):
    output, final = results
    return 2 * output, tuple(3 * state for state in final)


def _hook(module, args, results):
    return _doubled(results)


def _pre_hook(module, args):
    return args[0] + 1, *args[1:]


def _own_forward(module):
    forward = module.forward
    module.forward = lambda *args: _doubled(forward(*args))


def _other_class(**functions):
    def change(module):
        module.__class__ = type("Other", (type(module),), functions)

    return change


CHANGES = {
    "own forward": _own_forward,
    "class with forward": _other_class(forward=lambda self, *args: _doubled(super(type(self), self).forward(*args))),
    "class with __call__": _other_class(__call__=lambda self, *args: _doubled(nn.Module.__call__(self, *args))),
    "hook": lambda module: module.register_forward_hook(_hook),
    "pre-hook": lambda module: module.register_forward_pre_hook(_pre_hook),
    "global hook": lambda module: register_module_forward_hook(_hook),
    "global pre-hook": lambda module: register_module_forward_pre_hook(_pre_hook),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_stream_does_what_a_call_of_its_layer_does(change):
    """The layer's options change after the stream was made; torch.nn's layer, changed alike, gives the expected
    result."""
    module, theirs = (
        seqcells.LSTM(3, 5, batch_first=True, backend="cpu", **LIKE),
        nn.LSTM(3, 5, batch_first=True, **LIKE),
    )
    theirs.load_state_dict(module.state_dict())
    before, input = module.stream(2), torch.randn(3, 2, 3, **LIKE)
    for x in input:
        before(x)
    before.reset()
    handles = [CHANGES[change](each) for each in ([module] if "global" in change else [module, theirs])]
    try:
        hx, expected = None, []
        with torch.no_grad():
            for x in input:
                output, hx = theirs(x.unsqueeze(1), hx)
                expected.append(output.squeeze(1))
        for stream in (before, module.stream(2)):
            assert_equal_to([*(stream(x).clone() for x in input), *stream.state], [*expected, *hx])
    finally:
        for handle in filter(None, handles):
            handle.remove()


@pytest.mark.parametrize(
    ("given", "words"),
    (
        (lambda output, final: output, "output and states, got: Tensor"),
        (lambda output, final: (output[0], final), r"output of size \(1, 2, '…'\), got \[2, 5\]"),
        (lambda output, final: (output, final[:, :1]), r"Expected hidden size \(1, 2, 5\), got \[1, 1, 5\]"),
    ),
    ids=("no states", "no time", "other states"),
)
def test_a_stream_refuses_what_is_no_step(given, words):
    module, input = layer("gru", 3, 5, **LIKE), torch.randn(2, 3, **LIKE)
    stream = module.stream(2)
    expected = [stream(input).clone(), (stream.reset(), stream(input).clone())[1]]
    state = stream.state.clone()
    hook = module.register_forward_hook(lambda module, args, results: given(*results))
    with pytest.raises(RuntimeError, match=words):
        stream(input)
    assert torch.equal(stream.state, state) and torch.equal(*expected)
    hook.remove()
    with pytest.raises(RuntimeError, match=r"Expected hidden size \(1, 2, 5\), got \[1, 1, 5\]"):
        stream.state = state[:, :1]


@pytest.mark.parametrize("backend", ("cpu", "reference", "torch"))
@pytest.mark.parametrize("modes", ((True, False, True), (False, True, False)), ids=("made inside", "made outside"))
def test_a_stream_works_inside_and_outside_of_inference_mode(modes, backend):
    """Made in one mode, with inputs and states of the mode in which the stream is then stepped, and of the other
    mode."""
    module, theirs = layer("lstm", 3, 5, backend=backend, **LIKE), TORCH_LAYERS["lstm"](3, 5, **LIKE)
    theirs.load_state_dict(module.state_dict())
    input, hx = torch.randn(3, 2, 3, **LIKE), tuple(random_states("lstm", 1, 2, 5, **LIKE))
    row = torch.tensor([True, False])
    with torch.no_grad():
        once, between = theirs(input[:1], hx)
        twice, final = theirs(input[1:], tuple(state * ~row[:, None] for state in between))
    found = []
    for step, inside in enumerate(modes):
        with torch.inference_mode(inside):
            if step == 0:
                stream = module.stream(2)
                stream.state = tuple(state.clone() for state in hx)
            x = input[step].clone()
        found.append(stream(x).clone())
        with torch.inference_mode(inside):
            stream.state = tuple(state.clone() for state in stream.state)
        if step == 0:
            stream.reset(row)
            stream = copy.deepcopy(stream)
    assert_equal_to([*found, *stream.state], [once[0], *twice, *final])


class _Watching(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("first", (torch.enable_grad, lambda: torch.autocast("cpu", torch.bfloat16), _Watching))
def test_a_streams_first_step_does_not_decide_for_the_rest(first):
    module = layer("gru", 4, 8)
    stream, input = module.stream(), torch.randn(1, 4)
    with first():
        stream(input)
    stream(input)
    assert stream._inference is not None


@pytest.mark.parametrize("copied", (copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))), ids=("deepcopy", "pickle"))
@pytest.mark.parametrize("name", ("gru", "lstm"))
def test_a_stream_can_be_copied(name, copied):
    stream, input = layer(name, 4, 8, backend="cpu", **LIKE).stream(3), torch.randn(3, 4, **LIKE)
    stream(input)
    other = copied(stream)
    expected = stream(input).clone()
    assert torch.equal(other(input), expected) and torch.equal(other(input), stream(input))


def test_a_stream_allocates_nothing_and_says_what_it_cannot():
    stream = seqcells.GRU(4, 6, backend="cpu").stream()
    addresses = {stream(torch.randn(1, 4)).data_ptr() for _ in range(6)}
    assert len(addresses) == 2
    for wrong in (torch.randn(1, 5), torch.randn(2, 4), torch.randn(1, 4, **LIKE)):
        with pytest.raises(RuntimeError, match=r"Expected input of size \(1, 4\)"):
            stream(wrong)
    with pytest.raises(ValueError, match="bidirectional"):
        seqcells.GRU(4, 6, bidirectional=True).stream()


def test_a_step_that_was_prepared_is_operators_for_whoever_watches():
    module, input, seen = layer("gru", 4, 8, backend="cpu"), torch.randn(2, 1, 4), []
    stream = module.stream()
    expected = [stream(x).clone() for x in input]
    stream.reset()
    stream(input[0])

    class Seeing(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            seen.append(str(function))
            return function(*args, **(kwargs or {}))

    with Seeing():
        assert_equal_to([stream(input[1])], expected[1:], 1e-6)
    assert "seqcells.recurrence.default" in seen


def test_rows_to_reset_are_checked():
    stream = layer("gru", 3, 4).stream(2)
    stream(torch.randn(2, 3))
    stream.reset([True, False])
    assert not stream.state[:, 0].any() and stream.state[:, 1].all()
    for rows, error, words in (
        (torch.tensor([True]), RuntimeError, "Expected rows of size"),
        (torch.tensor([0, 1]), TypeError, "rows should be of dtype torch.bool"),
    ):
        with pytest.raises(error, match=words):
            stream.reset(rows)


def test_a_stream_tells_its_plan():
    """By the engine's prepared call where there is one, else that of a layer's call with T = 1."""
    for backend in ("cpu", "reference"):
        stream = seqcells.GRU(5, 7, backend=backend).stream(2)
        assert stream.plan().backend == backend
    layer = seqcells.GRU(5, 7)
    stream = layer.stream(2)
    layer.register_forward_hook(lambda *_: None)  # from now on a step is a call of the layer
    assert stream.plan() == layer.plan(torch.empty(1, 2, 5))
    stack = seqcells.Stack(seqcells.LSTM(3, 4, backend="cpu"), seqcells.GRU(4, 5, backend="reference"))
    assert [choice.backend for choice in stack.stream().plan()] == ["cpu", "reference"]
