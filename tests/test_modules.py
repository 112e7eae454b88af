"""The properties of a torch.nn module besides its numbers: parameters, state_dict, members, any strides."""

import io
import itertools

import pytest
import torch
from modules import IN, KINDS, H, N, T, assert_same, both, each_backend, each_layer, each_module, example, make, run
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pack_sequence
from torch.testing import assert_close

import seqcells


@each_module
def test_parameters_are_torchs(kind, settings):
    theirs, ours = both(kind, settings)
    assert [name for name, _ in ours.named_parameters()] == [name for name, _ in theirs.named_parameters()]
    for mine, wanted in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(mine, wanted)
        assert mine.dtype == wanted.dtype
    assert list(ours._parameters) == list(theirs._parameters), "None where torch.nn registers None"
    for module in (theirs, ours):
        torch.manual_seed(7)
        module.reset_parameters()
    assert all(map(torch.equal, ours.parameters(), theirs.parameters()))


@each_module
def test_state_dict_both_ways(kind, settings):
    theirs, ours = both(kind, settings)
    fresh = make(seqcells, kind, settings, seed=1)
    assert str(fresh.load_state_dict(theirs.state_dict(), strict=True)) == "<All keys matched successfully>"
    assert_same(fresh, theirs)
    fresh = make(nn, kind, settings, seed=1)
    assert str(fresh.load_state_dict(ours.state_dict(), strict=True)) == "<All keys matched successfully>"
    assert_same(ours, fresh)


@each_layer
def test_state_dict_errors_are_torchs(kind):
    state = make(nn, kind, {"num_layers": 2}).state_dict()
    words = []
    for library in (nn, seqcells):
        with pytest.raises(RuntimeError) as caught:
            make(library, kind, {}).load_state_dict(state)
        words.append(str(caught.value))
    assert words[0] == words[1]


@each_module
def test_repr_is_torchs(kind, settings):
    theirs, ours = both(kind, settings)
    assert repr(ours) == repr(theirs)
    assert ours.extra_repr() == theirs.extra_repr()


def test_repr_names_a_chosen_backend():
    assert repr(seqcells.LSTM(1, 2, backend="reference")) == "LSTM(1, 2, backend='reference')"
    assert repr(seqcells.GRUCell(1, 2, backend="torch")) == "GRUCell(1, 2, backend='torch')"


@each_module
def test_attributes_are_torchs(kind, settings):
    theirs, ours = both(kind, settings)
    names = ("input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout", "bidirectional", "proj_size")
    for name in (*names, "mode", "nonlinearity", "training"):
        assert getattr(ours, name, "none") == getattr(theirs, name, "none"), name


@each_module
def test_ours_are_modules_but_not_torchs_recurrent_ones(kind, settings):
    ours = make(seqcells, kind, settings)
    assert isinstance(ours, nn.Module)
    assert not isinstance(ours, (nn.RNNBase, nn.RNNCellBase)), "Dynamo breaks the graph on nn.LSTM and its like"
    assert type(ours).__module__.startswith("seqcells")


# The members of torch.nn's layers that users read.

LAYER_KINDS = {name: value for name, value in KINDS.items() if "Cell" not in name}
each_layer_setting = pytest.mark.parametrize(("kind", "settings"), LAYER_KINDS.values(), ids=LAYER_KINDS)


@each_layer_setting
def test_weights_by_layer(kind, settings):
    theirs, ours = both(kind, settings)
    assert ours._all_weights == theirs._all_weights
    assert ours._flat_weights_names == theirs._flat_weights_names
    assert [len(weights) for weights in ours.all_weights] == [len(weights) for weights in theirs.all_weights]
    parameters = dict(ours.named_parameters())
    flat = [parameters[name] for names in theirs._all_weights for name in names]
    assert all(a is b for a, b in zip(ours._flat_weights, flat, strict=True))
    assert all(a is b for a, b in zip(itertools.chain(*ours.all_weights), flat, strict=True))
    assert ours.flatten_parameters() is None


@each_layer_setting
@pytest.mark.parametrize("batch_sizes", [None, torch.tensor([3, 2, 1])], ids=["padded", "packed"])
def test_checks_and_expected_sizes(kind, settings, batch_sizes):
    theirs, ours = both(kind, settings)
    input = example(ours) if batch_sizes is None else example(ours).flatten(0, 1)[:6]
    size = theirs.get_expected_hidden_size(input, batch_sizes)
    assert ours.get_expected_hidden_size(input, batch_sizes) == size
    state = torch.zeros(size)
    hx = state
    if kind == "LSTM":
        cell_size = theirs.get_expected_cell_size(input, batch_sizes)
        assert ours.get_expected_cell_size(input, batch_sizes) == cell_size
        hx = (state, torch.zeros(cell_size))
    assert ours.check_input(input, batch_sizes) is None
    assert ours.check_hidden_size(state, size) is None
    assert ours.check_forward_args(input, hx, batch_sizes) is None
    wrong = (torch.zeros(1, 1, 1),) * 2 if kind == "LSTM" else torch.zeros(1, 1, 1)
    for call in (
        lambda module: module.check_input(input[..., 1:], batch_sizes),
        lambda module: module.check_hidden_size(state, (0, *size[1:])),
        lambda module: module.check_hidden_size(state, (0, *size[1:]), "wanted {}, got {}"),
        lambda module: module.check_forward_args(input, wrong, batch_sizes),
    ):
        words = []
        for module in (theirs, ours):
            with pytest.raises(RuntimeError) as caught:
                call(module)
            words.append(str(caught.value))
        assert words[0] == words[1]


@each_layer
def test_permute_hidden(kind):
    theirs, ours = both(kind, {})
    state = torch.randn(1, N, H)
    hx = (state, state + 1) if kind == "LSTM" else state
    assert ours.permute_hidden(hx, None) is hx
    order = torch.tensor([2, 0, 1])
    assert_close(ours.permute_hidden(hx, order), theirs.permute_hidden(hx, order), rtol=0, atol=0)


# Strides: values, not layouts, decide.

STRIDES = {
    "transposed": lambda t: t.transpose(0, -1).contiguous().transpose(0, -1),
    "sliced": lambda t: torch.stack([t, t + 1], -1)[..., 0],
    "every other row": lambda t: torch.stack([t, t + 1], 1).flatten(0, 1)[::2],
    "with an offset": lambda t: torch.cat([t[:1] + 1, t])[1:],
    "expanded": lambda t: t[..., :1, :].expand_as(t),
    "expanded features": lambda t: t[..., :1].expand_as(t),
}


@pytest.mark.parametrize("layout", STRIDES)
@pytest.mark.parametrize("batch_first", [False, True], ids=["time first", "batch first"])
@each_layer
@each_backend
def test_any_strides(kind, backend, batch_first, layout):
    settings = {"num_layers": 2, "bidirectional": True, "batch_first": batch_first, "dtype": torch.float64}
    theirs, ours = make(nn, kind, settings), make(seqcells, kind, {**settings, "backend": backend})
    input = STRIDES[layout](example(theirs))
    batch = input.shape[0 if batch_first else 1]
    state = STRIDES[layout](torch.randn(4, batch, H, dtype=torch.float64))
    hx = (state, STRIDES[layout](torch.randn(4, batch, H, dtype=torch.float64))) if kind == "LSTM" else state
    grads = []
    for module in (theirs, ours):
        leaf = input.detach().requires_grad_()
        output, final = module(leaf, hx)
        final = final if isinstance(final, tuple) else (final,)
        (output.square().sum() + sum(f.sum() for f in final)).backward()
        grads.append((output, final, leaf.grad, [p.grad for p in module.parameters()]))
    assert_close(*grads, rtol=0, atol=1e-12)


@each_layer
@each_backend
def test_the_negative_of_what_lies_in_memory(kind, backend):
    """The imaginary part of a conjugate has torch's negative bit, in the input and in the gradient; no operator may see
    it."""
    module = make(seqcells, kind, {"backend": backend, "dtype": torch.float64})
    input, state = (torch._neg_view(t) for t in (example(module), torch.randn(1, N, H, dtype=torch.float64)))
    assert input.is_neg() and input.is_contiguous()
    hx = (state, state) if kind == "LSTM" else state
    plain = tuple(s.resolve_neg() for s in hx) if kind == "LSTM" else state.resolve_neg()
    found = []
    for x, s, grad in ((input, hx, torch._neg_view), (input.resolve_neg(), plain, torch.neg)):
        with torch.no_grad():
            found.append([module(x, s)[0] for _ in range(3)])
        output = module(x, s)[0]
        found[-1] += [output, *torch.autograd.grad(output, [*module.parameters()], grad(torch.ones_like(output)))]
    assert_close(*found, rtol=0, atol=1e-12)


@pytest.mark.parametrize("layout", STRIDES)
@pytest.mark.parametrize("kind", ["LSTMCell", "GRUCell", "RNNCell"])
@each_backend
def test_any_strides_of_a_cell(kind, backend, layout):
    settings = {"dtype": torch.float64}
    theirs, ours = make(nn, kind, settings), make(seqcells, kind, {**settings, "backend": backend})
    input, state = STRIDES[layout](example(theirs)), STRIDES[layout](torch.randn(N, H, dtype=torch.float64))
    hx = (state, state) if kind == "LSTMCell" else state
    assert_close(ours(input, hx), theirs(input, hx), rtol=0, atol=1e-12)


@each_layer
@each_backend
@pytest.mark.parametrize("sorted_", [True, False], ids=["sorted", "unsorted"])
def test_packed_output_keeps_its_order(kind, backend, sorted_):
    theirs, ours = make(nn, kind, {}), make(seqcells, kind, {"backend": backend})
    sequences = [torch.randn(length, IN) for length in ((4, 3, 1) if sorted_ else (3, 1, 4))]
    packed = pack_sequence(sequences, enforce_sorted=sorted_)
    for mine, wanted in zip(run(ours, packed)[0], run(theirs, packed)[0], strict=True):
        assert_close(mine, wanted)


def test_lengths_like_packing():
    """The package's shortest promise: the same numbers without packing."""
    ours = make(seqcells, "LSTM", {})
    input, lengths = torch.randn(T, N, IN), torch.tensor([2, 5, 3])
    packed, final = ours(pack_padded_sequence(input, lengths, enforce_sorted=False))
    output, same_final = ours(input, lengths=lengths)
    assert_close(final, same_final)
    assert_close(nn.utils.rnn.pad_packed_sequence(packed)[0], output)


@pytest.mark.parametrize("prepared", (False, True))
@each_module
def test_a_whole_module_is_loaded_by_its_class_alone(kind, settings, prepared):
    """As for torch.nn's modules: any other class in the file would have to be declared safe too."""
    module, file = make(seqcells, kind, settings).eval(), io.BytesIO()
    for _ in range(3 * prepared):
        run(module)
    torch.save(module, file)
    file.seek(0)
    with torch.serialization.safe_globals([type(module)]):
        loaded = torch.load(file, weights_only=True)
    assert type(loaded) is type(module)
    for _ in range(3):
        assert_same(loaded, module)
