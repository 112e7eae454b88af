"""A layer or cell with torch.nn's weights gives torch.nn's numbers: outputs, final states, every gradient."""

import pytest
import torch
from nearness import ALLOWED, too_far
from support import (
    MAIN,
    TORCH_CELLS,
    TORCH_LAYERS,
    as_tuple,
    assert_equal_to,
    backends,
    cases,
    cell,
    gradients,
    like_module,
    pair,
    plain_if,
    random_states,
    results,
)
from torch.nn.utils.rnn import pack_sequence

T, B, F, H, P = 7, 3, 4, 5, 2
FORMS = ("batched", "unbatched", "packed sorted", "packed unsorted")
OPTIONS = [
    {"num_layers": layers, "bidirectional": bidirectional, "bias": bias, "batch_first": batch_first}
    for layers in (1, 2)
    for bidirectional in (False, True)
    for bias in (True, False)
    for batch_first in (False, True)
]


def check(theirs, ours, name, form, device, given_states=True):
    """Compare outputs and gradients of both for the same input, in one of the four forms."""
    count = theirs.num_layers * (2 if theirs.bidirectional else 1)
    like = {"dtype": torch.float64, "device": device}
    steps = {"packed sorted": (7, 4, 1), "packed unsorted": (2, 7, 5)}.get(form)
    if steps:
        leaves = [torch.randn(t, F, **like, requires_grad=True) for t in steps]
    else:
        leaves = [torch.randn(*((B, T) if theirs.batch_first else (T, B)), F, **like, requires_grad=True)]
        if form == "unbatched":
            leaves = [torch.randn(T, F, **like, requires_grad=True)]
    shape = (count, H) if form == "unbatched" else (count, B, H)
    hx = random_states(name, *shape, proj_size=theirs.proj_size, **like, requires_grad=True)
    found = []
    for module in (theirs, ours):
        input = pack_sequence(leaves, enforce_sorted=form == "packed sorted") if steps else leaves[0]
        if given_states:
            outputs = results(module, input, hx)
        else:
            output, final = module(input)
            outputs = [output.data if steps else output, *as_tuple(final)]
        inputs = [*leaves, *(hx if given_states else ()), *module.parameters()]
        found.append([*outputs, *gradients(outputs, inputs)])
    assert_equal_to(found[1], found[0])


@plain_if(lambda name, options, **_: name in MAIN or tuple(options.values()) == (2, True, True, False))
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(str(int(v)) for v in o.values()))
@pytest.mark.parametrize(("name", "backend"), cases(TORCH_LAYERS))
def test_layers_equal_torch(name, backend, options, form, device):
    theirs, ours = pair(name, backend, (F, H), device, **options)
    check(theirs, ours, name, form, device, given_states=options["bias"])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(str(int(v)) for v in o.values()))
@pytest.mark.parametrize("backend", backends("lstm", options=("projection",)))
def test_projected_lstm_equals_torch(backend, options, form, device):
    theirs, ours = pair("lstm", backend, (F, H), device, proj_size=P, **options)
    check(theirs, ours, "lstm", form, device, given_states=options["bias"])


@pytest.mark.parametrize("batched", (True, False))
@pytest.mark.parametrize("bias", (True, False))
@pytest.mark.parametrize(("name", "backend"), cases(TORCH_CELLS, form="step"))
def test_cells_equal_torch(name, backend, bias, batched, device):
    like = {"dtype": torch.float64, "device": device}
    theirs = TORCH_CELLS[name](F, H, bias=bias, **like)
    ours = cell(name, F, H, bias=bias, backend=backend, **like)
    ours.load_state_dict(theirs.state_dict())
    shape = (B,) if batched else ()
    input = torch.randn(*shape, F, **like, requires_grad=True)
    hx = random_states(name, *shape, H, **like, requires_grad=True)
    for states in (hx, None):
        found = []
        for module in (theirs, ours):
            outputs = as_tuple(module(input) if states is None else module(input, like_module(states)))
            found.append([*outputs, *gradients(outputs, [input, *hx, *module.parameters()])])
        assert_equal_to(found[1], found[0])


@pytest.mark.parametrize("backend", backends("lstm"))
@pytest.mark.parametrize("name", TORCH_LAYERS)
def test_dropout_between_layers_draws_torchs_numbers(name, backend):
    theirs, ours = pair(name, backend, (F, H), num_layers=3, dropout=0.4, bidirectional=True)
    input = torch.randn(T, B, F, dtype=torch.float64)
    for training in (True, False):
        outputs = []
        for module in (theirs, ours):
            torch.manual_seed(3)
            outputs.append(module.train(training)(input)[0])
        assert_equal_to(outputs[1:], outputs[:1])
    assert not torch.equal(ours.train()(input)[0], ours.eval()(input)[0])


@pytest.mark.parametrize("dtype", ALLOWED, ids=str)
@pytest.mark.parametrize("options", ({}, {"num_layers": 2, "bidirectional": True}), ids=("plain", "deep"))
@pytest.mark.parametrize(("name", "backend"), cases(TORCH_LAYERS))
def test_as_near_to_float64_as_torch(name, backend, options, dtype, device):
    assert not too_far(name, backend, (40, 8, 32, 48), dtype, device, **options)


@pytest.mark.parametrize("bidirectional", (False, True))
@pytest.mark.parametrize(("name", "backend"), cases(TORCH_LAYERS, dtype=torch.float64, devices=["cpu"]))
def test_dropout_of_packed_sequences_draws_torchs_numbers(name, backend, bidirectional):
    options = {"num_layers": 3, "dropout": 0.4, "bidirectional": bidirectional}
    theirs, ours = pair(name, backend, (F, H), **options)
    input = pack_sequence([torch.randn(t, F, dtype=torch.float64) for t in (2, 6, 3)], enforce_sorted=False)
    found = []
    for module in (theirs, ours):
        torch.manual_seed(3)
        outputs = results(module, input, random_states(name, 3 * (1 + bidirectional), 3, H, dtype=torch.float64))
        found.append([*outputs, *gradients(outputs, [*module.parameters()])])
    assert_equal_to(*found)
