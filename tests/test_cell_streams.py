"""Streams, which a cell reads besides its input: keyword arguments of a call, in the layer's own layout."""

import pytest
import torch
from every_cell import LAYERS, MODULES, OWN, make, random, registered, streams
from programs import B, H, T
from torch.testing import assert_close

import seqcells
from seqcells import functional

__all__ = ["registered"]  # a fixture of every test


def test_streams_lie_as_the_input():
    layer = make("head_attention", bidirectional=True)
    cell = layer.cell
    x, given = random(cell, "TBF"), streams(cell)
    expected = layer(x, **given)[0]
    lengths = torch.tensor([3, T, 2])
    bounded = layer(x, lengths=lengths, **given)[0]
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
    found = torch.nn.utils.rnn.pad_packed_sequence(layer(packed, **given)[0])[0]
    assert_close(found, bounded)
    one = layer(x[:, 1], decay=given["decay"][:, 1])[0]
    assert_close(one, expected[:, 1])
    layer.batch_first = True
    turned = layer(x.transpose(0, 1), decay=given["decay"].transpose(0, 1))[0]
    assert_close(turned.transpose(0, 1), expected)
    assert_close(layer(x[:, 1], decay=given["decay"][:, 1])[0], expected[:, 1])


def test_streams_of_each_layer_and_direction():
    """A stream may have a first axis more, (L·D, T, N); without it, all layers and directions read the same values."""
    layer = make("continuous_time_rnn", num_layers=2, bidirectional=True)
    x, elapsed = random(layer.cell, "TBF"), random(layer.cell, "TB", 4)
    expected = layer(x, elapsed=elapsed)[0]
    lowest = make("continuous_time_rnn", bidirectional=True)
    highest = LAYERS["continuous_time_rnn"](2 * H, H, bidirectional=True, dtype=torch.float64)
    for k, one in enumerate((lowest, highest)):
        own = {n.replace(f"_l{k}", "_l0"): v for n, v in layer.state_dict().items() if f"_l{k}" in n}
        one.load_state_dict(own)
    assert_close(highest(lowest(x, elapsed=elapsed[:2])[0], elapsed=elapsed[2:])[0], expected)
    same = elapsed[:1].expand(4, -1, -1)
    assert torch.equal(layer(x, elapsed=same)[0], layer(x, elapsed=elapsed[0])[0])
    layer.batch_first = True
    turned = layer(x.transpose(0, 1), elapsed=elapsed.transpose(1, 2))[0]
    assert_close(turned.transpose(0, 1), expected)


def test_what_streams_hold_past_the_end_does_not_matter():
    layer = make("softmax_rnn", bidirectional=True)
    x, elapsed, lengths = random(layer.cell, "TBF"), random(layer.cell, "TB"), torch.tensor([T, 0, 2])
    anything = elapsed.detach().clone()
    anything[torch.arange(T)[:, None] >= lengths] = float("nan")
    results = []
    for each in (elapsed.detach(), anything):
        each.requires_grad_()
        output = layer(x, elapsed=each, lengths=lengths)[0]
        grads = torch.autograd.grad(output.square().sum(), [each, *layer.parameters()], allow_unused=True)
        results.append([output, *(grad for grad in grads if grad is not None)])
    assert_close(*results)


def test_lists_arrays_truths_and_integers():
    layer = make("continuous_time_rnn").float()
    x = torch.rand(2, 1, 6)
    expected = layer(x, elapsed=torch.tensor([[1.0], [2.0]]))[0]
    for elapsed in (
        [[1], [2]],
        [[1.0], [2.0]],
        torch.tensor([[1], [2]]),
        torch.tensor([[1.0], [2.0]]).double().numpy(),
    ):
        assert torch.equal(layer(x, elapsed=elapsed)[0], expected)
    masked = make("zoneout_lstm").float()
    x, keep = torch.rand(T, B, 6), torch.rand(2, T, B, H) < 0.5
    h, c = masked(x, keep_h=keep[0], keep_c=keep[1]), masked(x, keep_h=keep[0].float(), keep_c=keep[1].float())
    assert torch.equal(h[0], c[0])


NAME = "the continuous_time_rnn cell"


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({}, TypeError, f"{NAME} is missing a required keyword argument: 'elapsed'"),
        ({"elapsed": None}, TypeError, f"{NAME} is missing a required keyword argument: 'elapsed'"),
        ({"elapsed": torch.ones(T, B), "mask": 1}, TypeError, f"{NAME} got an unexpected keyword argument 'mask'"),
        ({"elapsed": torch.ones(B, T)}, RuntimeError, r"Expected elapsed of size \(5, 3\), or \(2, 5, 3\) with one"),
        ({"elapsed": torch.ones(T)}, RuntimeError, r"Expected elapsed of size \(5, 3\), .*, got \[5\]"),
        ({"elapsed": torch.ones(3, T, B)}, RuntimeError, r"for each layer and direction, got \[3, 5, 3\]"),
        (
            {"elapsed": torch.ones(T, B).double()},
            RuntimeError,
            "Input and elapsed tensors are not the same dtype, found",
        ),
        (
            {"elapsed": torch.ones(T, B, device="meta")},
            RuntimeError,
            "Input and elapsed tensors are not at the same dev",
        ),
        ({"elapsed": "soon"}, TypeError, "elapsed should be a tensor, an array or a list, got str"),
    ],
)
def test_bad_streams(given, error, words):
    layer = LAYERS["continuous_time_rnn"](6, H, num_layers=2)
    with pytest.raises(error, match=words):
        layer(torch.ones(T, B, 6), **given)


def test_bad_streams_of_a_cell_module():
    module = MODULES["continuous_time_rnn"](6, H)
    for given, error, words in (
        ({}, TypeError, "missing a required keyword argument: 'elapsed'"),
        ({"elapsed": torch.ones(T)}, RuntimeError, r"Expected elapsed of size \(3,\), got \[5\]"),
        ({"elapsed": torch.ones(B), "mask": 1}, TypeError, "got an unexpected keyword argument 'mask'"),
    ):
        with pytest.raises(error, match=words):
            module(torch.ones(B, 6), **given)


def test_a_cell_module_of_another_output_keeps_too():
    module = make("control_gate_lstm", MODULES)
    x = random(module.cell, "BF")
    output, states, kept = module(x, keep=("squashed", "h"))
    assert torch.equal(kept["h"], output) and kept.keys() == {"squashed", "h"}
    assert_close(kept["squashed"], torch.tanh(states[1]))
    with pytest.raises(TypeError, match="keep should be a sequence of names"):
        module(x, keep="h")


@pytest.mark.parametrize("module", [seqcells.LSTM(6, H), seqcells.LSTMCell(6, H)])
def test_torchs_cells_have_no_streams(module):
    x = torch.ones(B, 6) if isinstance(module, seqcells.LSTMCell) else torch.ones(T, B, 6)
    for _ in range(4):  # prepared from the third call on
        module(x)
        with pytest.raises(TypeError, match="the lstm cell got an unexpected keyword argument 'mask'"):
            module(x, mask=1)


def test_a_stream_may_not_be_called_as_an_argument():
    with pytest.raises(TypeError, match="cannot have a stream reset"):
        type("Bad", (OWN["zoneout_lstm"],), {"streams": {"reset": "TBH"}})


@pytest.mark.parametrize("backend", ["torch", "reference"])
def test_functions_refuse_what_torchs_cells_do_not_read(backend):
    module = seqcells.LSTM(6, H)
    x, states = torch.ones(T, B, 6), [torch.zeros(1, B, H)] * 2
    with pytest.raises(TypeError, match="the lstm cell got an unexpected keyword argument 'mask'"):
        functional.layers(module.cell, x, states, module._weights(), streams={"mask": x}, backend=backend)
