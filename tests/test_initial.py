"""Initial values: learnt initial states, the forget gate's bias, and any named parameter."""

import copy
import pickle

import pytest
import torch
from every_cell import OWN, make, random, states, streams
from support import like_module
from torch import nn
from torch.testing import assert_close
from written_out import IN, LAYERS, H, N, T, in_registry

import seqcells
from seqcells import cells

DOUBLE = {"dtype": torch.float64}


@pytest.fixture(autouse=True)
def registered():
    with in_registry():
        yield


def learnt(kind=seqcells.LSTM, **others):
    torch.manual_seed(5)
    layer = kind(IN, H, learn_hx=True, **DOUBLE, **others)
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            if name.startswith("initial_"):
                parameter.normal_()
    return layer


def of_batch(layer, batch=N):
    """The learnt states in the form in which a call gets states."""
    names = [f"initial_{state}" for state in layer.cell.states]
    return [getattr(layer, name)[:, None].expand(-1, batch, -1) for name in names]


# Learnt initial states.


@pytest.mark.parametrize("others", [{}, {"num_layers": 2, "bidirectional": True}, {"proj_size": 2}], ids=str)
def test_learnt_states_count_where_none_are_given(others):
    """Output, final states and gradients equal those of a call with the same states, expanded over the batch."""
    layer, x = learnt(**others), torch.randn(T, N, IN, **DOUBLE, requires_grad=True)
    hx = of_batch(layer)
    found = []
    for output, final in (layer(x), layer(x, tuple(hx))):
        results = [output, *final]
        found.append([*results, *torch.autograd.grad([r.square().sum() for r in results], [*layer.parameters()])])
    assert_close(*found)
    shapes = [tuple(p.shape) for n, p in layer.named_parameters() if n.startswith("initial_")]
    assert shapes == [(len(state), state.shape[-1]) for state in hx]
    given = [torch.randn_like(state) for state in hx]
    plain = seqcells.LSTM(IN, H, **DOUBLE, **others)
    plain.load_state_dict({n: v for n, v in layer.state_dict().items() if not n.startswith("initial_")})
    assert_close(layer(x, tuple(given)), plain(x, tuple(given)))


def test_learnt_states_by_finite_differences():
    layer = learnt(seqcells.GRU)
    x = torch.randn(T, N, IN, **DOUBLE)

    def run(initial):
        return torch.func.functional_call(layer, {"initial_h": initial}, (x,))[0]

    assert torch.autograd.gradcheck(run, (layer.initial_h.detach().requires_grad_(),))


def test_a_reset_begins_with_learnt_states():
    layer, x = learnt(num_layers=2), torch.randn(T, N, IN, **DOUBLE)
    reset = torch.rand(T, N) < 0.5
    expected = layer(x, tuple(of_batch(layer)), reset=reset, reset_state=tuple(of_batch(layer)))
    assert_close(layer(x, reset=reset), expected)
    zeros = tuple(torch.zeros_like(state) for state in of_batch(layer))
    assert_close(layer(x, zeros, reset=reset)[0], layer(x, zeros, reset=reset, reset_state=tuple(of_batch(layer)))[0])
    given = tuple(torch.randn_like(state) for state in zeros)
    assert not torch.equal(layer(x, reset=reset, reset_state=given)[0], expected[0])


def test_forms_of_input():
    layer, x = learnt(bidirectional=True), torch.randn(T, N, IN, **DOUBLE)
    expected = layer(x)[0]
    assert_close(layer(x[:, 1])[0], expected[:, 1])
    assert layer(x[:, 1])[1][0].shape == (2, H)
    lengths = torch.tensor([2, T, 1])
    packed = nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
    found, final = layer(packed)
    bounded, ended = layer(x, lengths=lengths)
    assert_close(nn.utils.rnn.pad_packed_sequence(found)[0], bounded)
    assert_close(final, ended)
    layer.batch_first = True
    assert_close(layer(x.transpose(0, 1))[0].transpose(0, 1), expected)
    for _ in range(4):  # never a prepared call with zero states
        assert_close(layer(x.transpose(0, 1))[0].transpose(0, 1), expected)


def test_they_begin_as_zeros_and_all_else_as_torchs():
    torch.manual_seed(6)
    ours = seqcells.LSTM(IN, H, learn_hx=True)
    torch.manual_seed(6)
    theirs = nn.LSTM(IN, H)
    for name, parameter in theirs.named_parameters():
        assert torch.equal(getattr(ours, name), parameter)
    assert torch.equal(ours.initial_h, torch.zeros(1, H)) and torch.equal(ours.initial_c, torch.zeros(1, H))
    ours.initial_c.data.fill_(3)
    ours.reset_parameters()
    assert torch.equal(ours.initial_c, torch.zeros(1, H))
    assert [*ours.state_dict()] == [*theirs.state_dict(), "initial_h", "initial_c"]
    assert len(ours._flat_weights) == len(ours.all_weights[0]) == 4


def test_torchs_checkpoints():
    """They load where the option is off; where it is on, the missing parameters are named as usual."""
    file = nn.LSTM(IN, H).state_dict()
    seqcells.LSTM(IN, H).load_state_dict(file)
    with pytest.raises(RuntimeError, match=r'Missing key.*"initial_h", "initial_c"'):
        seqcells.LSTM(IN, H, learn_hx=True).load_state_dict(file)
    assert not seqcells.LSTM(IN, H, learn_hx=True).load_state_dict(file, strict=False).unexpected_keys


@pytest.mark.parametrize("name", ["scrn", "gru_d", "head_attention"])
def test_states_of_any_size(name):
    cell = OWN[name]
    cells.register(cell)
    layer = make(name, learn_hx=True)
    x, given = random(layer.cell, "TBF"), streams(layer.cell)
    hx = [getattr(layer, f"initial_{state}")[:, None].expand(-1, 3, -1) for state in layer.cell.states]
    assert [state.shape[-1] for state in hx] == [state.shape[-1] for state in states(layer.cell)]
    assert_close(layer(x, **given), layer(x, like_module(hx), **given))
    del cells.REGISTRY[name]


def test_stream_begins_with_learnt_states():
    layer, x = learnt(num_layers=2), torch.randn(T, N, IN, **DOUBLE)
    stream = layer.stream(N)
    assert_close(torch.stack([stream(step).clone() for step in x]), layer(x)[0])
    rows = torch.tensor([True, False, True])
    stream.reset(rows)
    both = zip(of_batch(layer), layer(x)[1], strict=True)
    expected = [torch.where(rows[:, None], initial, now) for initial, now in both]
    assert_close([*stream.state], expected)
    stream.reset()
    assert_close([*stream.state], [*of_batch(layer)])


@pytest.mark.parametrize("way", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))], ids=["copy", "file"])
def test_copies(way):
    layer, x = learnt(), torch.randn(T, N, IN, **DOUBLE)
    twin = way(layer)
    assert repr(twin) == repr(layer) == f"LSTM({IN}, {H}, learn_hx=True)"
    assert_close(twin(x), layer(x))
    assert twin.initial_h is not layer.initial_h


def test_torchs_module_has_none():
    with pytest.raises(TypeError, match=r"torch\.nn has no learn_hx, which this LSTM has"):
        learnt().to_torch()
    with pytest.raises(TypeError, match="learn_hx should be of type bool, got: str"):
        seqcells.GRU(IN, H, learn_hx="yes")
    model = nn.Sequential(learnt())
    seqcells.unswap(model)
    assert isinstance(model[0], seqcells.LSTM)


def test_learnt_states_compiled_traced_and_transformed():
    layer, x = learnt(bidirectional=True), torch.randn(T, N, IN, **DOUBLE)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    found = []
    for run in (layer, compiled):
        output = run(x)[0]
        found.append([output, *torch.autograd.grad(output.sum(), [*layer.parameters()])])
    assert_close(*found)
    many = torch.stack([x, x.flip(0)])
    assert_close(torch.vmap(lambda x: layer(x)[0])(many), torch.stack([layer(each)[0] for each in many]))
    graph = torch.fx.symbolic_trace(nn.Sequential(layer))
    assert_close(graph(x), layer(x))


def test_with_all_other_options():
    layer = learnt(num_layers=2, recurrent_dropout=0.3, zoneout=0.1, proj_size=2)
    x, found = torch.randn(T, N, IN, **DOUBLE), []
    for hx in (None, tuple(of_batch(layer))):
        torch.manual_seed(1)
        found.append(layer(x, hx, keep=("c", "f_l0")))
    assert_close(*found)


def test_under_autocast():
    layer, x = learnt().float(), torch.randn(T, N, IN)
    with torch.autocast("cpu", torch.bfloat16):
        output = layer(x)[0]
    assert_close(output.float(), layer(x)[0], atol=0.05, rtol=0.05)


# Initial values.


@pytest.mark.parametrize("kind", [seqcells.LSTM, seqcells.LSTMCell, seqcells.PeepholeLSTM])
def test_a_forget_gates_bias(kind):
    """Rows of the biases by gate have the given values, also after a reset; all other rows are drawn as usual."""
    torch.manual_seed(2)
    plain = kind(IN, H)
    torch.manual_seed(2)
    module = kind(IN, H, initial={"bias_ih.f": 1.0, "bias_hh.f": 0})
    end = "_l0" if "Cell" not in kind.__name__ else ""
    for _ in range(2):
        bias, other = getattr(module, f"bias_ih{end}"), getattr(module, f"bias_hh{end}")
        assert torch.equal(bias[H : 2 * H], torch.ones(H)) and torch.equal(other[H : 2 * H], torch.zeros(H))
        torch.manual_seed(2)
        module.reset_parameters()
    rest = torch.ones(4 * H, dtype=torch.bool)
    rest[H : 2 * H] = False
    assert torch.equal(bias[rest], getattr(plain, f"bias_ih{end}")[rest])
    assert torch.equal(getattr(module, f"weight_hh{end}"), getattr(plain, f"weight_hh{end}"))
    layers = seqcells.LSTM(IN, H, 2, bidirectional=True, initial={"bias_ih.f": 2.0})
    for name in ("bias_ih_l0", "bias_ih_l1", "bias_ih_l0_reverse", "bias_ih_l1_reverse"):
        assert torch.equal(getattr(layers, name)[H : 2 * H], torch.full((H,), 2.0))


def test_a_modules_own_values_go_before_the_cells():
    rows = cells.LayerNormLSTM.rows_of("weight_norm_x")
    layer = LAYERS["layer_norm_lstm"](IN, H, initial=dict.fromkeys(rows, 0.5))
    assert torch.equal(layer.weight_norm_x_l0, torch.full((4, H), 0.5))
    assert torch.equal(layer.weight_norm_h_l0, torch.ones(4, H))
    fast = LAYERS["fast_grnn"](IN, H, initial={"zeta": 7})
    assert fast.weight_zeta_l0.item() == 7 and fast.weight_nu_l0.item() == -4


@pytest.mark.parametrize(
    ("kind", "options", "error", "words"),
    [
        (seqcells.LSTM, {"initial": {"bias_ih.x": 1}}, ValueError, r"has 'bias_ih\.x', .*: bias_ih\.i, bias_ih\.f"),
        (seqcells.GRU, {"initial": {"bias_ih.f": 1}}, ValueError, r"has 'bias_ih\.f', which is none of this module"),
        (seqcells.LSTM, {"initial": {"bias_ih.f": 1}, "bias": False}, ValueError, r"initial has 'bias_ih\.f'"),
        (seqcells.LSTMCell, {"initial": {"bias_ih.f": 1}, "bias": False}, ValueError, r"initial has 'bias_ih\.f'"),
        (seqcells.RNNCell, {"initial": {"bias_ih.q": 1}}, ValueError, r"initial has 'bias_ih\.q'"),
        (seqcells.LSTM, {"initial": {"bias_ih.f": "1"}}, TypeError, "initial should have numbers, got '1'"),
    ],
)
def test_bad_initial_values(kind, options, error, words):
    with pytest.raises(error, match=words):
        kind(IN, H, **options)


def test_initial_values_are_no_hindrance_to_torchs_module():
    layer = seqcells.LSTM(IN, H, initial={"bias_ih.f": 1.0})
    theirs = layer.to_torch()
    assert theirs.bias_ih_l0 is layer.bias_ih_l0 and "initial" not in vars(theirs)
    assert pickle.loads(pickle.dumps(layer)).initial == {"bias_ih.f": 1.0}
