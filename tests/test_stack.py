"""Stacks: layers of different sizes and cells give the results of each layer alone, with the connections between."""

import copy
import pickle

import pytest
import torch
from support import as_tuple
from torch import nn
from torch.nn.functional import layer_norm, linear
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.testing import assert_close

import seqcells
from seqcells import GRU, LSTM, Stack, StackedCells
from seqcells.cells.activations import tanh as torch_tanh

T, N, F = 5, 3, 2
KIND = {"dtype": torch.float64}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(5)


def two(**options):
    """An LSTM of 4 units below a GRU of 5."""
    return LSTM(F, 4, **KIND | options), GRU(4, 5, **KIND | options)


def inputs(*shape):
    return torch.randn(*shape or (T, N), F, **KIND)


def test_each_layer_reads_the_one_below():
    """Output, final states, gradients."""
    lower, upper = two()
    stack, x = Stack(lower, upper), inputs().requires_grad_()
    hx = (torch.randn(1, N, 4, **KIND), torch.randn(1, N, 4, **KIND)), torch.randn(1, N, 5, **KIND)
    output, (h_lower, h_upper) = stack(x, hx)
    below, expected_lower = lower(x, hx[0])
    expected, expected_upper = upper(below, hx[1])
    assert_close([output, *h_lower, h_upper], [expected, *expected_lower, expected_upper])
    leaves = [x, *stack.parameters()]
    assert_close(torch.autograd.grad(output.sum(), leaves), torch.autograd.grad(expected.sum(), leaves))
    assert (stack.input_size, stack.output_size) == (F, 5)
    assert_close(stack(x)[0], upper(lower(x)[0])[0])
    assert_close(stack(x, (None, hx[1]))[0], upper(lower(x)[0], hx[1])[0])


@pytest.mark.parametrize("sizes", [(4, 5), (4, 4)])
def test_residual(sizes):
    """Around all layers except the first, with a matrix where sizes differ."""
    lower, upper = LSTM(F, sizes[0], **KIND), GRU(*sizes, **KIND)
    stack, x = Stack(lower, upper, connection="residual"), inputs()
    below = lower(x)[0]
    carried = below if sizes[0] == sizes[1] else linear(below, stack.connections["1"].carry.weight)
    assert_close(stack(x)[0], upper(below)[0] + carried)
    assert "0" not in stack.connections


@pytest.mark.parametrize("sizes", [(4, 5), (4, 4)])
def test_highway(sizes):
    lower, upper = LSTM(F, sizes[0], **KIND), GRU(*sizes, **KIND)
    stack, x = Stack(lower, upper, connection=(None, "highway")), inputs()
    between = stack.connections["1"]
    assert (between.gate.bias == -1).all()
    below = lower(x)[0]
    carried = below if sizes[0] == sizes[1] else linear(below, between.carry.weight)
    gate = torch.sigmoid(linear(below, between.gate.weight, between.gate.bias))
    assert_close(stack(x)[0], gate * upper(below)[0] + (1 - gate) * carried)


def test_a_connection_around_the_first():
    layer = GRU(F, F, **KIND)
    x = inputs()
    assert_close(Stack(layer, connection=["residual"])(x)[0], x + layer(x)[0])


def test_layer_norm_lies_between():
    lower, upper = two()
    stack, x = Stack(lower, upper, layer_norm=True), inputs()
    nn.init.normal_(stack.norms["0"].weight)
    norm = stack.norms["0"]
    assert [*stack.norms] == ["0"]
    assert_close(stack(x)[0], upper(layer_norm(lower(x)[0], (4,), norm.weight, norm.bias))[0])


def test_dropout_lies_between():
    lower, upper = two()
    stack, x = Stack(lower, upper, dropout=0.5), inputs()
    torch.manual_seed(1)
    found = stack(x)[0]
    torch.manual_seed(1)
    assert_close(found, upper(nn.functional.dropout(lower(x)[0], 0.5))[0])
    stack.eval()
    assert_close(stack(x)[0], upper(lower(x)[0])[0])


MERGED = {
    "concat": lambda a, b: torch.cat([a, b], -1),
    "sum": lambda a, b: a + b,
    "mul": lambda a, b: a * b,
    "average": lambda a, b: (a + b) / 2,
}


@pytest.mark.parametrize("merge", MERGED)
def test_two_directions_are_merged(merge):
    size = 8 if merge == "concat" else 4
    lower, upper = LSTM(F, 4, bidirectional=True, **KIND), GRU(size, 3, bidirectional=True, **KIND)
    stack, x = Stack(lower, upper, merge=merge), inputs()
    below = MERGED[merge](*lower(x)[0].chunk(2, -1))
    assert_close(stack(x)[0], MERGED[merge](*upper(below)[0].chunk(2, -1)))
    assert stack.output_size == (6 if merge == "concat" else 3)


WAYS = {"connection": "residual", "layer_norm": True}


def test_the_order_of_what_lies_between():
    """Dropout, then the connection, then the norm."""
    lower, upper, last = GRU(F, F, **KIND), GRU(F, 4, **KIND), GRU(4, 3, **KIND)
    stack, x = Stack(lower, upper, last, connection=["residual", None, None], dropout=0.5, layer_norm=True), inputs()
    torch.manual_seed(1)
    found = stack(x)[0]
    torch.manual_seed(1)
    value = layer_norm(nn.functional.dropout(lower(x)[0], 0.5) + x, (F,))
    value = layer_norm(nn.functional.dropout(upper(value)[0], 0.5), (4,))
    assert_close(found, last(value)[0])


@pytest.mark.parametrize("batch_first", [False, True])
def test_sequences_of_other_lengths(batch_first):
    """Padded and packed: each sequence equals its own run, and is zero past its length, whatever the input's padding
    holds. Gradients agree too."""
    stack = Stack(*two(batch_first=batch_first), connection=["highway", "residual"], layer_norm=True)
    x, lengths = inputs(), torch.tensor([5, 2, 3])
    x[2:, 1] = torch.nan
    given = x.transpose(0, 1) if batch_first else x
    output, finals = stack(given, lengths=lengths)
    output = output.transpose(0, 1) if batch_first else output
    for row, length in enumerate(lengths):
        alone, final = stack(given[row : row + 1, :length] if batch_first else x[:length, row : row + 1])
        alone = alone[0] if batch_first else alone[:, 0]
        assert_close(output[:length, row], alone)
        assert not output[length:, row].any()
        for ours, theirs in zip(finals, final, strict=True):
            assert_close([s[:, row] for s in as_tuple(ours)], [s[:, 0] for s in as_tuple(theirs)])
    found = torch.autograd.grad(output.square().sum(), [*stack.parameters()])
    clean = given.nan_to_num(7.0)
    assert_close(found, torch.autograd.grad(stack(clean, lengths=lengths)[0].square().sum(), [*stack.parameters()]))
    packed = pack_padded_sequence(given, lengths, batch_first, enforce_sorted=False)
    again, finals_again = stack(packed)
    assert_close(pad_packed_sequence(again, batch_first)[0], output.transpose(0, 1) if batch_first else output)
    assert_close([*as_tuple(finals[0]), finals[1]], [*as_tuple(finals_again[0]), finals_again[1]])


def test_an_input_without_a_batch_axis():
    stack, x = Stack(*two(), connection=["residual", "residual"]), inputs()
    output, (lower, upper) = stack(x[:, 0])
    expected, (expected_lower, expected_upper) = stack(x[:, :1])
    assert_close([output, *lower, upper], [v[:, 0] for v in (expected, *expected_lower, expected_upper)])
    assert_close(stack(x[:, 0], lengths=torch.tensor(3))[0][:3], output[:3])
    assert not stack(x[:, 0], lengths=torch.tensor(3))[0][3:].any()


def test_resets_reach_all_layers():
    stack, x = Stack(*two(), **WAYS), inputs()
    reset = torch.zeros(T, N, dtype=torch.bool)
    reset[3] = True
    anew = (torch.randn(1, N, 4, **KIND), torch.randn(1, N, 4, **KIND)), torch.randn(1, N, 5, **KIND)
    assert_close(stack(x, reset=reset)[0][3:], stack(x[3:])[0])
    assert_close(stack(x, reset=reset, reset_state=anew)[0][3:], stack(x[3:], anew)[0])
    with pytest.raises(ValueError, match="reset_state should only be given with reset"):
        stack(x, reset_state=anew)


def test_streams_go_to_those_who_read_them():
    timed = seqcells.define(seqcells.cells.GRUDecay)[0](F, 4, **KIND, backend="reference")
    stack, x, elapsed = Stack(timed, GRU(4, 5, **KIND)), inputs(), torch.rand(T, N, **KIND)
    assert_close(stack(x, elapsed=elapsed)[0], stack.layers[1](timed(x, elapsed=elapsed)[0])[0])
    with pytest.raises(TypeError, match="unexpected keyword argument 'time', which no cell of it reads"):
        stack(x, time=elapsed)
    stream = stack.stream(N)
    outputs = [stream(v, elapsed=t).clone() for v, t in zip(x, elapsed, strict=True)]
    assert_close(torch.stack(outputs), stack(x, elapsed=elapsed)[0])


@pytest.mark.parametrize("options", [{}, WAYS, {"connection": "highway"}])
def test_a_stream_gives_what_the_sequence_gives(options):
    stack, x = Stack(*two(), **options), inputs()
    expected, final = stack(x)
    stream = stack.stream(N)
    assert_close(torch.stack([stream(step).clone() for step in x]), expected)
    assert_close([*stream.state[0], stream.state[1]], [*final[0], final[1]])
    stream.reset(torch.tensor([True, False, False]))
    assert_close(stream(x[0])[0], expected[0, 0])
    stream.state = final
    assert_close(stream(x[0]), stack(x[:1], final)[0][0])
    stream.reset()
    assert_close(stream(x[0]), expected[0])


def test_stateful_layers():
    stack, x = Stack(*two(stateful=True), **WAYS), inputs()
    whole = stack(x)[0]
    stack.reset_states()
    assert_close(torch.cat([stack(x[:2])[0], stack(x[2:])[0]]), whole)
    stack.reset_states(torch.tensor([True, False, True]))
    output = stack(x)[0]
    assert_close(output[:, 0], whole[:, 0])
    assert not torch.allclose(output[:, 1], whole[:, 1])


def test_a_copy_a_file_and_a_graph():
    stack, x = Stack(*two(), **WAYS), inputs()
    expected = stack(x)[0]
    for other in (copy.deepcopy(stack), pickle.loads(pickle.dumps(stack))):
        assert_close(other(x)[0], expected)
    fresh = Stack(*two(), **WAYS)
    fresh.load_state_dict(stack.state_dict())
    assert_close(fresh(x)[0], expected)
    assert_close(torch.compile(stack, backend="aot_eager", fullgraph=True)(x)[0], expected)
    assert "LSTM(2, 4)" in repr(stack)
    assert Stack(*(layer.float() for layer in two()), **WAYS).connections["1"].carry.weight.dtype == torch.float32


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("options", [{}, WAYS])
def test_stacked_cells(batched, options):
    """Cells of different sizes, one of them with an output that is another state or none."""
    slow = seqcells.define(seqcells.cells.SCRN)[1]
    cells = seqcells.LSTMCell(F, 4, **KIND), seqcells.GRUCell(4, 5, **KIND)
    stack = StackedCells(*cells, slow(5, 3, context_size=2, output_size=6, **KIND), **options)
    x, hx, states = (inputs() if batched else inputs()[:, 0]), None, [None] * 3
    for step in x:
        output, hx = stack(step, hx)
        value = step
        for k, cell in enumerate(stack.cells):
            found = cell(value, states[k])
            made, states[k] = found if k == 2 else (found[0] if k == 0 else found, found)
            value = stack._connected(k, value, made)
        assert_close(output, value)
    assert stack.output_size == output.shape[-1] == 6


class Swapped(seqcells.cells.Cell):
    """A cell whose output is its second state, and which reads a stream."""

    name, gates, states, output, streams = "swapped", ("a", "b"), ("h", "c"), "c", {"mask": "BH"}

    @staticmethod
    def step(x, r, s, p):
        return torch_tanh(x.a + r.a), s.c + x.mask * torch_tanh(x.b + r.b)


@pytest.mark.usefixtures("own_registry")
def test_stacked_cells_whose_output_is_another_state_and_with_streams():
    module = seqcells.define(Swapped)[1](F, 4, backend="reference", **KIND)
    upper, x, mask = seqcells.GRUCell(4, 5, **KIND), inputs()[0], torch.rand(N, 4, **KIND)
    stack = StackedCells(module, upper)
    output, ((h, c), _) = stack(x, mask=mask)
    assert_close([h, c], [*module(x, mask=mask)])
    assert_close(output, upper(c))
    with pytest.raises(TypeError, match="unexpected keyword argument 'time'"):
        stack(x, time=mask)


def test_stacked_cells_are_the_stack():
    layers = two()
    cells = seqcells.LSTMCell(F, 4, **KIND), seqcells.GRUCell(4, 5, **KIND)
    for layer, cell in zip(layers, cells, strict=True):
        cell.load_state_dict({name.removesuffix("_l0"): value for name, value in layer.state_dict().items()})
    stack, x = Stack(*layers, connection="residual"), inputs()
    below = StackedCells(*cells, connection="residual")
    below.connections.load_state_dict(stack.connections.state_dict())
    hx, outputs = None, []
    for step in x:
        output, hx = below(step, hx)
        outputs.append(output)
    assert_close(torch.stack(outputs), stack(x)[0])


def test_the_plan_of_each_layer():
    stack = Stack(LSTM(F, 4, bidirectional=True, backend="cpu", **KIND), GRU(4, 5, **KIND), merge="sum")
    packed = pack_padded_sequence(inputs(), [5, 3, 2])
    above = torch.zeros(T, N, 4, **KIND)
    packed_above = pack_padded_sequence(above, [5, 3, 2])
    lengths = {"lengths": torch.tensor([5, 3, 2])}
    for input, between, bounds in (
        (inputs(), above, {}),
        (inputs(), above, lengths),
        (inputs(T), above[:, 0], {}),
        (packed, packed_above, {}),
    ):
        first, second = stack.layers
        assert stack.plan(input, **bounds) == (first.plan(input, **bounds), second.plan(between, **bounds))
    cells = StackedCells(seqcells.LSTMCell(F, 4, backend="cpu", **KIND), seqcells.GRUCell(4, 5, **KIND))
    assert cells.plan(inputs(N)) == (cells.cells[0].plan(inputs(N)), cells.cells[1].plan(torch.zeros(N, 4, **KIND)))


def test_what_cannot_be():
    lower, upper = two()
    for wrong, error, words in (
        (lambda: Stack(), ValueError, "a stack should have at least one RecurrentLayer"),
        (lambda: Stack(nn.LSTM(F, 4)), TypeError, "should be made of RecurrentLayer of seqcells, got LSTM"),
        (lambda: Stack(upper, lower), ValueError, "module 1 should have input_size 5, as module 0 gives, got 2"),
        (lambda: Stack(lower, upper, merge="max"), ValueError, "unknown merge 'max'"),
        (lambda: Stack(lower, upper, connection="skip"), ValueError, "unknown connection 'skip'"),
        (lambda: Stack(lower, upper, connection=["residual"]), ValueError, "should have 2 entries"),
        (lambda: Stack(lower, upper, dropout=2), ValueError, r"range \[0, 1\]"),
        (lambda: Stack(lower, GRU(4, 5, batch_first=True)), ValueError, "the same batch_first"),
        (lambda: StackedCells(lower), TypeError, "should be made of RecurrentCell of seqcells, got LSTM"),
        (lambda: Stack(lower, upper)(inputs(), torch.zeros(1)), RuntimeError, "Expected hx of 2 entries"),
        (lambda: Stack(lower, upper)(inputs(), (None,)), RuntimeError, "Expected hx of 2 entries"),
        (lambda: Stack(GRU(F, 4, bidirectional=True)).stream(), ValueError, "cannot be stepped"),
        (
            lambda: Stack(lower, upper)(inputs(), 3),
            RuntimeError,
            "Expected hx of 2 entries, one for each module, got one int",
        ),
        (lambda: Stack(lower, upper, connection=3), TypeError, "connection should be a name"),
        (lambda: setattr(Stack(lower, upper).stream(), "state", (None,)), RuntimeError, "Expected state of 2 entries"),
        (lambda: Stack(lower, upper).stream(N)(inputs()[0], time=1), TypeError, "unexpected keyword argument 'time'"),
        (lambda: Stack(lower, upper)(inputs(), keep=("c",)), TypeError, "unexpected keyword argument 'keep'"),
        (
            lambda: Stack(lower, upper)(inputs(), lengths=torch.tensor([9, 1, 1])),
            ValueError,
            "between 0 and the number",
        ),
    ):
        with pytest.raises(error, match=words):
            wrong()


@pytest.mark.parametrize("connection", ["residual", "highway"])
def test_autocast(connection):
    """The connections combine tensors of different dtypes."""
    stack = Stack(GRU(F, F), GRU(F, 5), connection=[connection] * 2)
    cells = StackedCells(seqcells.LSTMCell(F, 4), seqcells.GRUCell(4, 5), connection=connection)
    x = torch.randn(T, N, F)
    with torch.autocast("cpu", torch.bfloat16):
        found = [stack(x)[0], cells(x[0])[0]]
    assert_close(found[0].float(), stack(x)[0], rtol=0.05, atol=0.05)
    assert_close(found[1].float(), cells(x[0])[0], rtol=0.05, atol=0.05)


def test_unswap_leaves_it():
    model, x = nn.Sequential(Stack(*two()), GRU(5, 2, **KIND)), inputs()
    expected = model[0](x)[0]
    report = seqcells.unswap(model)
    assert [*report.replaced] == ["1"] and set(report.left.values()) == {"a Stack is made of layers of seqcells"}
    assert_close(model[0](x)[0], expected)
