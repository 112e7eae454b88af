"""Stateful layers: batch after batch forms one long sequence, and no gradient crosses from one batch to the next."""

import copy
import pickle

import pytest
import torch
from support import as_tuple, layer, like_module
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence
from torch.testing import assert_close

import seqcells

T, N, F, H = 4, 3, 2, 5
KIND = {"dtype": torch.float64}
NAMES = ["lstm", "gru", "rnn_tanh", "peephole_lstm", "slstm"]


def made(name="lstm", **options):
    torch.manual_seed(3)
    return layer(name, F, H, stateful=True, **KIND | options)


def parts(count=4, batch_first=False):
    torch.manual_seed(4)
    return torch.randn(count, *((N, T) if batch_first else (T, N)), F, **KIND)


def plain(module):
    """The same layer without states of its own."""
    other = copy.deepcopy(module)
    other.stateful = False
    other.reset_states()
    return other


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "batch_first": True}, {"backend": "reference"}])
def test_parts_are_the_whole(name, options):
    """Outputs and final states, over more calls than a prepared call needs."""
    module = made(name, **options)
    first = module.batch_first
    inputs = parts(5, first)
    with torch.no_grad():
        outputs, finals = zip(*(module(input) for input in inputs), strict=True)
        whole, final = plain(module)(torch.cat([*inputs], 1 if first else 0))
    assert_close(torch.cat(outputs, 1 if first else 0), whole)
    assert_close(as_tuple(finals[-1]), as_tuple(final))
    assert_close(as_tuple(module.states), as_tuple(final))


@pytest.mark.parametrize("name", NAMES)
def test_a_gradient_ends_where_its_batch_begins(name):
    """Truncated backpropagation: the gradients of a layer with detached states; for prepared calls too."""
    module = made(name)
    other, hx = plain(module), None
    for part in parts(5):
        results = []
        for each, given in ((module, ()), (other, (hx,))):
            input = part.clone().requires_grad_()
            output, final = each(input, *given)
            each.zero_grad()
            (output.square().sum() + sum(state.sum() for state in as_tuple(final))).backward()
            results.append([output, input.grad, *(p.grad.clone() for p in each.parameters())])
        hx = like_module([state.detach() for state in as_tuple(final)])
        assert_close(*results)
        assert not any(state.requires_grad for state in as_tuple(module.states))


def test_a_state_that_is_given_goes_before_what_is_kept():
    module, (first, second, third) = made("gru"), parts(3)
    module(first)
    given = torch.randn(1, N, H, **KIND)
    output, final = module(second, given)
    assert_close(output, plain(module)(second, given)[0])
    assert_close(module(third)[0], plain(module)(third, final)[0])


@pytest.mark.parametrize("learn", [False, True])
def test_all_begin_anew_or_some(learn):
    module, (first, second) = made("lstm", learn_hx=learn), parts(2)
    if learn:
        for name in ("initial_h", "initial_c"):
            nn.init.normal_(getattr(module, name))
    anew = plain(module)(second)[0]
    _, final = module(first)
    on = plain(module)(second, final)[0]
    module.reset_states(torch.tensor([True, False, True]))
    output = module(second)[0]
    assert_close(output[:, [0, 2]], anew[:, [0, 2]])
    assert_close(output[:, 1], on[:, 1])
    module.reset_states()
    assert module.states is None
    assert_close(module(second)[0], anew)
    module.reset_states()
    assert_close(module(second[:, :1])[0], anew[:, :1])  # a batch of another size


def test_rows_are_checked_before_the_first_call_too():
    module = made("gru")
    with pytest.raises(TypeError, match=r"rows should be of dtype torch\.bool"):
        module.reset_states(torch.zeros(N))
    with pytest.raises(RuntimeError, match=r"Expected rows of size \(N,\), got \[1, 3\]"):
        module.reset_states(torch.zeros(1, 3, dtype=torch.bool))


def test_before_the_first_call_there_is_nothing_to_reset():
    module = made()
    module.reset_states(torch.zeros(N, dtype=torch.bool))
    assert module.states is None


def test_sequences_that_end_earlier_go_on_from_there():
    module, (first, second) = made(), parts(2)
    lengths = torch.tensor([4, 1, 2])
    _, final = module(first, lengths=lengths)
    assert_close(module(second)[0], plain(module)(second, final)[0])
    packed = pack_padded_sequence(first, lengths, enforce_sorted=False)
    module.reset_states()
    module(packed)
    assert_close(as_tuple(module.states), as_tuple(final))


def test_an_episode_that_ends_inside_is_reset_by_its_flag():
    module, inputs = made("gru"), parts(2)
    reset = torch.rand(2, T, N) < 0.3
    outputs = [module(input, reset=flags)[0] for input, flags in zip(inputs, reset, strict=True)]
    assert_close(torch.cat(outputs), plain(module)(inputs.flatten(0, 1), reset=reset.flatten(0, 1))[0])


def test_an_input_without_a_batch_axis():
    module, (first, second) = made("gru"), parts(2)[:, :, 0]
    _, final = module(first)
    assert module.states.shape == (1, H)
    assert_close(module(second)[0], plain(module)(second, final)[0])
    module.reset_states(torch.tensor([True]))
    assert_close(module(second)[0], plain(module)(second)[0])


def test_the_state_dict_is_torchs():
    module = made()
    module(parts(1)[0])
    assert module.state_dict().keys() == nn.LSTM(F, H).state_dict().keys()
    assert not [*module.buffers()]
    other = made()
    other.load_state_dict(module.state_dict())
    other.states = module.states
    assert_close(other(parts()[1])[0], module(parts()[1])[0])


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_a_copy_goes_on_by_itself(copied):
    module, inputs = made(), parts()
    module(inputs[0])
    other = copied(module)
    expected = module(inputs[1])[0]
    assert_close(other(inputs[1])[0], expected)
    assert_close(other(inputs[2])[0], module(inputs[2])[0])


def test_states_follow_the_parameters():
    module = made("gru")
    module(parts()[0])
    module.float()
    assert module.states.dtype == torch.float32
    assert module(parts()[1].float())[0].dtype == torch.float32
    assert module.to("meta").states.is_meta


def test_states_of_inference_mode_serve_in_training():
    module, inputs = made("gru"), parts()
    with torch.inference_mode():
        _, final = module(inputs[0])
    output, _ = module(inputs[1])
    output.sum().backward()
    assert_close(output, plain(module)(inputs[1], final.clone())[0])


def test_what_is_learnt_gets_gradients_where_rows_begin_anew():
    module, (first, second) = made("gru", learn_hx=True), parts(2)
    module(first)
    module.reset_states(torch.tensor([True, False, False]))
    module.reset_states(torch.tensor([False, True, False]))
    with torch.no_grad():
        module.initial_h.fill_(0.5)
    output = module(second)[0]
    (found,) = torch.autograd.grad(output.sum(), module.initial_h)
    alone = plain(module)(second[:, :2])[0]
    assert_close(output[:, :2], alone)
    other = plain(module)
    assert_close(found, torch.autograd.grad(other(second[:, :2])[0].sum(), other.initial_h)[0])


def test_autocast_leaves_states_that_can_go_on():
    module, inputs = layer("lstm", F, H, stateful=True), parts().float()
    with torch.autocast("cpu", torch.bfloat16):
        module(inputs[0])
    assert module(inputs[1])[0].dtype == torch.float32


def test_it_is_a_leaf_of_fx():
    model = torch.fx.symbolic_trace(nn.Sequential(made("gru")))
    assert [node.op for node in model.graph.nodes] == ["placeholder", "call_module", "output"]


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_compiled(name):
    """In one graph, which reads the states of the call before."""
    module, inputs = made(name), parts(4)
    expected = [plain(module)(torch.cat([*inputs]))[0]]
    run = torch.compile(module, backend="aot_eager", fullgraph=True)
    assert_close([torch.cat([run(input)[0] for input in inputs])], expected)


def test_what_is_done_to_a_returned_state_does_not_reach_the_kept_one():
    module, inputs = made("gru"), parts()
    for input in inputs[:3]:
        _, final = module(input)
    on = plain(module)(inputs[3], final.clone())[0]
    final.zero_()
    assert_close(module(inputs[3])[0], on)


def test_transforms_and_exports_are_refused():
    """The states that they leave would be useless outside the transform or export."""
    inputs = parts()
    for wrong in (
        lambda module: torch.func.vmap(lambda x: module(x)[0])(inputs),
        lambda module: torch.func.grad(lambda x: module(x)[0].sum())(inputs[0]),
        lambda module: torch.export.export(module, (inputs[0],)),
    ):
        module = made("gru")
        with pytest.raises(Exception, match="a stateful layer keeps states, which no transform, trace or export can"):
            wrong(module)
        assert module.states is None
        assert_close(module(inputs[0])[0], plain(module)(inputs[0])[0])


def test_the_option_can_be_assigned():
    module, inputs = made("gru"), parts()
    expected = plain(module)(inputs[1])[0]
    module(inputs[0])
    module.stateful = False
    assert_close(module(inputs[1])[0], expected)
    assert "stateful" in repr(made()) and "stateful" not in repr(module)


def test_what_cannot_be():
    with pytest.raises(ValueError, match="a bidirectional layer cannot be stateful"):
        made(bidirectional=True)
    module = layer("gru", F, H, bidirectional=True)
    module.stateful = True
    with pytest.raises(ValueError, match="a bidirectional layer cannot be stateful"):
        module(torch.randn(T, N, F))
    with pytest.raises(TypeError, match="stateful should be of type bool, got: int"):
        seqcells.LSTM(F, H, stateful=1)
    module = made()
    module(parts()[0])
    with pytest.raises(RuntimeError, match="keeps the states of 3 sequences, got an input of 2 sequences"):
        module(parts()[1][:, :2])
    with pytest.raises(RuntimeError, match="keeps the states of 3 sequences, got an input of no batch axis"):
        module(parts()[1][:, 0])
    with pytest.raises(TypeError, match=r"rows should be of dtype torch\.bool"):
        module.reset_states(torch.zeros(N))
    with pytest.raises(RuntimeError, match=r"Expected rows of size \(3,\), got \[2\]"):
        module.reset_states(torch.zeros(2, dtype=torch.bool))
    with pytest.raises(TypeError, match="hx should be a tuple of 2 tensors"):
        module.states = torch.zeros(1, N, H)
    with pytest.raises(TypeError, match="states should be tensors"):
        made("gru").states = "a"
    with pytest.raises(ValueError, match="a stateful layer keeps its states itself"):
        module.stream()
    with pytest.raises(TypeError, match="stateful"):
        module.to_torch()
