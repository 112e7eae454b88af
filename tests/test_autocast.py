"""Under autocast, results have torch.nn's dtypes, for any form of the call and any backend."""

import pytest
import torch
from support import (
    TORCH_CELLS,
    TORCH_LAYERS,
    as_tuple,
    assert_equal_to,
    backends,
    cell,
    distance,
    layer,
    like_module,
    random_states,
    results,
)
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from seqcells.cells import REGISTRY

T, B, F, H = 5, 3, 4, 6
HALF = torch.bfloat16
KINDS = {**{name: (name, {}) for name in TORCH_LAYERS}, "lstm-proj": ("lstm", {"proj_size": 2})}
BACKENDS = ("auto", *(set(backends("lstm", devices=["cpu"])) - {"torch"}))


def flat(results):
    output, final = results
    return [output.data if isinstance(output, PackedSequence) else output, *as_tuple(final)]


def found_by(module, form, input, hx):
    """Results of the module under autocast, called in the given form."""
    if form == "unbatched":
        input, hx = input[:, 0], like_module([state[:, 0] for state in hx]) if hx else None
    elif form == "packed":
        input = pack_padded_sequence(input, [5, 3, 1])
    hx = like_module(hx) if isinstance(hx, list) else hx
    extra = {"lengths": {"lengths": torch.tensor([5, 5, 5])}, "reset": {"reset": torch.zeros(T, B, dtype=torch.bool)}}
    run = torch.compile(module, fullgraph=True, backend="aot_eager") if form == "compiled" else module
    with torch.autocast("cpu", HALF):
        return flat(run(input, hx, **extra.get(form, {})))


@pytest.mark.parametrize("form", ("plain", "unbatched", "packed", "lengths", "reset", "compiled"))
@pytest.mark.parametrize("kind", KINDS)
def test_a_layer(kind, form):
    """Dtypes equal torch.nn's where torch.nn can run. Where oneDNN's LSTM fails, the expected dtype is autocast's."""
    (name, options), like_theirs = KINDS[kind], form in ("plain", "unbatched", "packed")
    theirs = TORCH_LAYERS[name](F, H, 2, **options)
    ours, truth = layer(name, F, H, 2, **options), layer(name, F, H, 2, **options).double()
    ours.load_state_dict(theirs.state_dict())
    truth.load_state_dict(theirs.state_dict())
    input = torch.randn(T, B, F)
    for given in (None, torch.float32, HALF) if form != "compiled" else (None,):
        hx = given and [s.to(given) for s in random_states(name, 2, B, H, **options)]
        try:
            expected = [t.dtype for t in found_by(theirs, form if like_theirs else "plain", input, hx)]
        except RuntimeError as error:
            assert "could not create a primitive" in str(error)
            expected = [HALF] * (1 + len(ours.cell.states))
        exact = found_by(
            truth, form if form != "compiled" else "plain", input.double(), hx and [s.double() for s in hx]
        )
        for ours.backend in ("auto",) if form == "compiled" else BACKENDS:
            found = found_by(ours, form, input, hx)
            assert [t.dtype for t in found] == expected, (ours.backend, given)
            assert all(distance(a, b) < 0.05 for a, b in zip(found, exact, strict=True))
            found[0].sum().backward()


@pytest.mark.parametrize("name", TORCH_CELLS)
def test_a_cell(name):
    theirs, ours = TORCH_CELLS[name](F, H), cell(name, F, H)
    ours.load_state_dict(theirs.state_dict())
    for given in (None, torch.float32, HALF):
        hx = given and like_module([s.to(given) for s in random_states(name, B, H)])
        for input in (torch.randn(B, F), torch.randn(B, F, dtype=HALF)):
            with torch.autocast("cpu", HALF):
                expected = as_tuple(theirs(input, hx))
                for ours.backend in BACKENDS:
                    found = as_tuple(ours(input, hx))
                    assert [t.dtype for t in found] == [t.dtype for t in expected], (ours.backend, given)
                    assert all(distance(a, b.double()) < 0.05 for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("name", TORCH_LAYERS)
def test_without_one_dnn(name):
    theirs, ours = TORCH_LAYERS[name](F, H), layer(name, F, H)
    with torch.backends.mkldnn.flags(enabled=False):
        expected = [t.dtype for t in found_by(theirs, "plain", torch.randn(T, B, F), None)]
        for form in ("plain", "lengths", "reset"):
            assert [t.dtype for t in found_by(ours, form, torch.randn(T, B, F), None)] == expected


@pytest.mark.parametrize("name", REGISTRY)
def test_what_is_computed(name, device):
    module = layer(name, F, H, 2, bidirectional=True, backend="reference", device=device)
    input = torch.randn(T, B, F, device=device)
    half = layer(name, F, H, 2, bidirectional=True, device=device, dtype=torch.bfloat16)
    half.load_state_dict(module.state_dict())
    half.backend = "reference"
    states = random_states(name, 4, B, H, device=device)
    with torch.autocast(device, torch.bfloat16):
        outputs = results(module, input, states)
    expected = results(half, input.bfloat16(), [s.bfloat16() for s in states])
    assert_equal_to([o.bfloat16() for o in outputs], expected, 0)
    loss = outputs[0].float().sum()
    assert all(g.dtype == torch.float32 for g in torch.autograd.grad(loss, list(module.parameters())))


@pytest.mark.parametrize("gradients", (False, True), ids=("inference", "training"))
@pytest.mark.parametrize("name", TORCH_LAYERS)
def test_by_default_it_is_torchs_where_torch_can(name, gradients, device):
    """Where torch's own operator fails, our backend runs, and the plan says so."""
    module = layer(name, F, H, 2, device=device)
    theirs = TORCH_LAYERS[name](F, H, 2, device=device)
    theirs.load_state_dict(module.state_dict())
    input = torch.randn(T, B, F, device=device)
    with torch.autocast(device, torch.bfloat16), torch.set_grad_enabled(gradients):
        ours, choice = module(input), module.plan(input)
        try:
            expected, tolerance = theirs(input), 0
        except RuntimeError as error:
            words = str(error).splitlines()[0]
            assert choice.backend != "torch" and f"torch's own operator fails here: {words}" in choice.reason
            module.backend = "reference"
            expected, tolerance = module(input), 0.02
    assert_equal_to([ours[0], *as_tuple(ours[1])], [expected[0], *as_tuple(expected[1])], tolerance)
