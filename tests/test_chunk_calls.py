"""Weights in one chunk are multiplied in place; otherwise each call takes copies, without a warning."""

import pytest
import torch
from chunks import as_if_with_cudnn, broken, each_kind, example, is_whole, lie_in_one_chunk, recorded, whole_to_cudnn
from modules import N, T, make
from support import assert_equal_to, gradients, results
from torch import nn
from torch.nn.utils import parametrizations
from torch.utils.flop_counter import FlopCounterMode

import seqcells


@pytest.fixture
def asked(monkeypatch):
    return as_if_with_cudnn(monkeypatch)


@pytest.fixture
def multiplied(monkeypatch):
    return recorded(monkeypatch)


@each_kind
def test_what_lies_in_one_chunk_is_given_as_it_is(kind, settings, asked, multiplied):
    module = make(seqcells, kind, {**settings, "backend": "torch"})
    for _ in range(2):
        module(example(module))
    assert len(asked) == 1
    assert all(a is b for given in multiplied for a, b in zip(given, module.parameters(), strict=True))


@pytest.mark.parametrize("dropout", (0.0, 0.5))
@each_kind
def test_of_others_a_call_takes_copies_and_gradients_reach_them(kind, settings, dropout, asked, multiplied):
    theirs, ours = make(nn, kind, settings).double(), make(seqcells, kind, {**settings, "backend": "torch"}).double()
    theirs.dropout = ours.dropout = dropout if settings.get("num_layers", 1) > 1 else 0.0
    broken(ours)
    addresses = [p.data_ptr() for p in ours.parameters()]
    found = []
    for module in (theirs, ours):
        input = example(module).requires_grad_()
        torch.manual_seed(0)
        output, _ = module(input)
        found.append([output, *gradients([output], [input, *module.parameters()])])
    assert_equal_to(found[1], found[0])
    assert len(multiplied) == 1 and lie_in_one_chunk(multiplied[0])
    assert [p.data_ptr() for p in ours.parameters()] == addresses and not is_whole(ours)
    with torch.no_grad():
        ours(input)
    assert lie_in_one_chunk(multiplied[1]) and not any(t.requires_grad for t in multiplied[1])
    ours.flatten_parameters()
    ours(input)
    assert all(a is b for a, b in zip(multiplied[2], ours.parameters(), strict=True))


def tied(module):
    module.weight_hh_l1 = module.weight_hh_l0


def parametrized(module):
    parametrizations.weight_norm(module, "weight_hh_l0")


def through_flat_weights(module):
    module._flat_weights[1] = module.weight_hh_l0 * 2


@pytest.mark.parametrize("change", (tied, parametrized, through_flat_weights), ids=lambda each: each.__name__)
def test_computed_and_tied_weights_have_gradients_through_copies(change, asked, multiplied):
    found = []
    for library, settings in ((nn, {}), (seqcells, {"backend": "torch"})):
        module = make(library, "LSTM", {"num_layers": 2, **settings})
        change(module)
        outputs = results(module, example(module), [torch.zeros(2, N, 6)] * 2)
        found.append([*outputs, *gradients(outputs, [*module.parameters()])])
    assert_equal_to(found[1], found[0], 1e-6)
    assert lie_in_one_chunk(multiplied[0])


def test_frozen_weights_have_no_gradients(asked):
    module = broken(make(seqcells, "GRU", {"backend": "torch"}))
    module.weight_hh_l0.requires_grad_(False)
    module(example(module))[0].sum().backward()
    assert module.weight_hh_l0.grad is None and module.weight_ih_l0.grad is not None


def test_packed_and_functional_calls_take_copies_too(asked, multiplied):
    module = broken(make(seqcells, "LSTM", {"backend": "torch"}))
    packed = nn.utils.rnn.pack_padded_sequence(example(module), [T, 3, 2])
    expected, _ = module.to_torch()(packed)
    broken(module)
    output, _ = module(packed)
    assert_equal_to([output.data], [expected.data], 1e-6)
    others = {name: p.detach().clone() for name, p in module.named_parameters()}
    torch.func.functional_call(module, others, (example(module),))
    assert len(multiplied) == 2 and all(map(lie_in_one_chunk, multiplied))


def test_a_flat_buffer_in_another_order_is_no_chunk(asked, multiplied):
    """Trainers that hold all parameters in one buffer make such an order."""
    module = make(seqcells, "GRU", {"backend": "torch"})
    buffer, begin = torch.empty(sum(p.numel() for p in module.parameters())), 0
    for p in reversed([*module.parameters()]):
        place = buffer[begin : begin + p.numel()].view_as(p)
        p.data, begin = place.copy_(p.data), begin + p.numel()
    module(example(module))
    assert all(a is not b for a, b in zip(multiplied[0], module.parameters(), strict=True))


def test_where_somebody_transforms_or_watches_nothing_is_copied(asked, multiplied):
    module = broken(make(seqcells, "GRU", {"backend": "torch"}))
    input, parameters = example(module), {name: p.detach() for name, p in module.named_parameters()}
    del asked[:]

    def run(given):
        return torch.func.functional_call(module, given, (input,))[0].sum()

    torch.func.grad(run)(parameters)
    with torch.autocast("cpu", torch.bfloat16):
        module(input)
    with FlopCounterMode(display=False):
        module(input)
    torch.jit.trace(module, (input,), check_trace=False)
    assert not asked and len(multiplied) == 4


on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")


@on_gpu
@pytest.mark.cuda
@each_kind
def test_on_a_gpu_broken_weights_are_compacted_without_a_warning(kind, settings):
    module = broken(make(seqcells, kind, {**settings, "backend": "torch", "device": "cuda"}))
    twin = make(nn, kind, {**settings, "device": "cuda"})
    twin.load_state_dict(module.state_dict())
    found = []
    for each in (twin, module):
        output, _ = each(example(each))
        found.append([output, *torch.autograd.grad(output.square().sum(), [*each.parameters()])])
    assert_equal_to(found[1], found[0], 1e-5)
    assert whole_to_cudnn(module) and not is_whole(module)
    assert not whole_to_cudnn(broken(module.to_torch())), "the test of this test: torch.nn warns"
