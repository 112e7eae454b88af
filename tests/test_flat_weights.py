"""`_flat_weights`, to which weight-drop implementations write: its entries and the list behave like torch.nn's."""

import copy
import pickle

import pytest
import torch
from modules import IN, N, T, make
from support import as_tuple, assert_equal_to, gradients
from torch import nn

import seqcells

INPUT = torch.randn(T, N, IN, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
SETTINGS = {"num_layers": 2, "bidirectional": True, "dtype": torch.float64}


def drop(weight, seed=3):
    """Weight drop: some weights become zero, and gradients flow to the raw weights."""
    return weight * (torch.rand(weight.shape, generator=torch.Generator().manual_seed(seed)) > 0.5)


def entry(module, raw):
    module._flat_weights[1] = drop(raw)


def kept_list(module, raw):
    weights = module._flat_weights
    weights[1] = drop(raw)


def whole_list(module, raw):
    module._flat_weights = [drop(raw) if k == 1 else weight for k, weight in enumerate(module._flat_weights)]


def slice_of_it(module, raw):
    module._flat_weights[1:2] = [drop(raw)]


def plain_attribute(module, raw):
    del module.weight_hh_l0
    module.weight_hh_l0 = drop(raw)


def in_parameters(module, raw):
    """fastai's way."""
    module._parameters["weight_hh_l0"] = drop(raw)
    module._flat_weights[1] = module._parameters["weight_hh_l0"]


def deleted_parameter(module, raw):
    """Salesforce's AWD-LSTM and torchnlp delete the Parameter and register its raw form."""
    del module._parameters["weight_hh_l0"]
    module.register_parameter("weight_hh_l0_raw", raw)
    module._flat_weights[1] = drop(module.weight_hh_l0_raw)


def then_in_place(module, raw):
    entry(module, raw)
    with torch.no_grad():
        module.bias_hh_l0.add_(1)  # an optimizer's step: no weight becomes another object


def then_another_parameter(module, raw):
    entry(module, raw)
    module.weight_ih_l0 = nn.Parameter(raw.detach()[:, :IN].clone())  # all weights are read again


def then_converted(module, raw):
    entry(module, raw)
    module.double()  # all weights are read again


def then_called_with_others(module, raw):
    entry(module, raw)
    others = {"bias_hh_l0": module.bias_hh_l0.detach() + 1}
    torch.func.functional_call(module, others, (INPUT,))


def then_copied(module, raw):
    entry(module, raw.detach())
    return copy.deepcopy(module)


def then_pickled(module, raw):
    entry(module, raw.detach())
    return pickle.loads(pickle.dumps(module))


WAYS = (
    *(entry, kept_list, whole_list, slice_of_it, plain_attribute, in_parameters, deleted_parameter, then_in_place),
    *(then_another_parameter, then_converted, then_called_with_others, then_copied, then_pickled),
)


def outcome(module, way):
    """Output, final states and the gradient that reaches the raw weight."""
    raw = nn.Parameter(module.weight_hh_l0.detach().clone() + 0.5)
    keys = list(module.state_dict())
    module = way(module, raw) or module
    if way is not deleted_parameter:
        assert set(module.state_dict()) <= set(keys), "no new entry of the state_dict"
    output, final = module(INPUT)
    results = [output, *as_tuple(final)]
    return [each.detach() for each in results] + gradients(results, [raw])


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("backend", ["reference", "torch"])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_what_is_assigned_counts_as_in_torch(kind, backend, way):
    theirs = outcome(make(nn, kind, SETTINGS), way)
    ours = outcome(make(seqcells, kind, {**SETTINGS, "backend": backend}), way)
    assert_equal_to(ours, theirs)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("way", ["entry", "list"])
def test_a_prepared_call_sees_it_at_once(kind, way):
    theirs, ours = make(nn, kind, SETTINGS), make(seqcells, kind, {**SETTINGS, "backend": "auto"})
    early = ours._flat_weights
    for turn in range(3):
        with torch.no_grad():
            for _ in range(4):
                assert_equal_to(as_tuple(ours(INPUT))[:1], as_tuple(theirs(INPUT))[:1])
        for module, weights in ((theirs, theirs._flat_weights), (ours, early)):
            new = drop(module.weight_hh_l0, seed=turn)
            if way == "entry" and turn < 2:
                weights[1] = new
            else:
                module._flat_weights = [new if k == 1 else weight for k, weight in enumerate(module._flat_weights)]
    with torch.no_grad():
        assert_equal_to(as_tuple(ours(INPUT))[:1], as_tuple(theirs(INPUT))[:1])


def test_a_stream_sees_it_at_the_next_step():
    ours = make(seqcells, "LSTM", {"dtype": torch.float64})
    stream = ours.stream(N)
    for k in range(3):
        stream(INPUT[k])
    ours._flat_weights[1] = drop(ours.weight_hh_l0)
    theirs = make(nn, "LSTM", {"dtype": torch.float64})
    _, states = theirs(INPUT[:3])
    theirs._flat_weights[1] = drop(theirs.weight_hh_l0)
    expected, _ = theirs(INPUT[3:4], states)
    assert_equal_to([stream(INPUT[3])], [expected[0].detach()])


def test_a_list_of_another_length_is_refused():
    ours = make(seqcells, "GRU", {})
    ours._flat_weights = ours._flat_weights[:3]
    with pytest.raises(RuntimeError, match="Expected 4 flat weights, got 3"):
        ours(torch.zeros(T, N, IN))
    with pytest.raises(RuntimeError):
        theirs = make(nn, "GRU", {})
        theirs._flat_weights = theirs._flat_weights[:3]
        theirs(torch.zeros(T, N, IN))


def test_the_list_holds_the_parameters_until_then():
    ours = make(seqcells, "LSTM", SETTINGS)
    assert all(a is b for a, b in zip(ours._flat_weights, ours.parameters(), strict=True))
    assert ours._flat_weights is ours._flat_weights
