"""Streams: a step at a time gives what the sequence gives, in the layer's own way, and can be copied."""

import copy
import pickle

import pytest
import torch
from support import MAIN, as_tuple, assert_equal_to, layer, like_module, plain_if, random_states
from torch.utils._python_dispatch import TorchDispatchMode

import seqcells
from seqcells.cells import REGISTRY
from seqcells.kernels import cpu

if cpu.unavailable():
    pytest.skip(f"the CPU engine is not here: {cpu.unavailable()}", allow_module_level=True)

from seqcells.kernels.cpu import library

LIKE = {"dtype": torch.float64}


@pytest.fixture
def threads(monkeypatch):
    """Sets the number of threads, as if there were processors for all of them."""
    monkeypatch.setattr(library, "cores", lambda: 64)
    yield torch.set_num_threads
    torch.set_num_threads(1)


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
    """The output of two steps before lies where the next one will."""
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
    assert stream._inference.call.holds() and (threads(1), not stream._inference.call.holds())[1]


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
