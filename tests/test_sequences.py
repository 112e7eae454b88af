"""Sequences cut in two, single steps and single rows always give the same numbers, at any size."""

import pytest
import torch
from support import (
    MAIN,
    as_tuple,
    assert_equal_to,
    cases,
    cell,
    gradients,
    layer,
    like_module,
    plain_if,
    random_states,
    results,
)

T, B, F, H = 9, 3, 4, 5
LIKE = {"dtype": torch.float64}


@pytest.mark.parametrize(("name", "backend"), cases())
def test_two_halves_equal_the_whole(name, backend, device):
    module = layer(name, F, H, 2, backend=backend, device=device, **LIKE)
    input = torch.randn(T, B, F, device=device, requires_grad=True, **LIKE)
    hx = random_states(name, 2, B, H, device=device, requires_grad=True, **LIKE)
    whole = results(module, input, hx)
    first, *middle = results(module, input[:4], hx)
    second, *final = results(module, input[4:], middle)
    halves = [torch.cat([first, second]), *final]
    inputs = [input, *hx, *module.parameters()]
    assert_equal_to([*halves, *gradients(halves, inputs)], [*whole, *gradients(whole, inputs)])


@pytest.mark.parametrize(("name", "backend"), cases(form="step"))
def test_one_step_equals_the_cell(name, backend, device):
    one = cell(name, F, H, backend=backend, device=device, **LIKE)
    module = layer(name, F, H, backend=backend, device=device, **LIKE)
    module.load_state_dict({f"{key}_l0": value for key, value in one.state_dict().items()})
    input = torch.randn(T, B, F, device=device, **LIKE)
    hx = state = random_states(name, B, H, device=device, **LIKE)
    outputs = []
    for t in range(T):
        stepped = results(module, input[t : t + 1], [s.unsqueeze(0) for s in state])
        state = as_tuple(one(input[t], like_module(state)))
        assert_equal_to(state, [s[0] for s in stepped[1:]])
        outputs.append(state[0])
    expected = results(module, input, [s.unsqueeze(0) for s in hx])
    assert_equal_to([torch.stack(outputs), *(s.unsqueeze(0) for s in state)], expected)


@pytest.mark.parametrize(("name", "backend"), cases())
def test_a_row_of_a_batch_equals_that_row_alone(name, backend, device):
    module = layer(name, F, H, 2, bidirectional=True, backend=backend, device=device, **LIKE)
    input, hx = torch.randn(T, B, F, device=device, **LIKE), random_states(name, 4, B, H, device=device, **LIKE)
    together = results(module, input, hx)
    for b in range(B):
        alone = results(module, input[:, b : b + 1], [s[:, b : b + 1] for s in hx])
        assert_equal_to(alone, [r[:, b : b + 1] for r in together])


@plain_if(lambda name, sizes, **_: name in MAIN or sizes == (4, 33, 1, 7))
@pytest.mark.parametrize("sizes", ((1, 1, 1, 1), (1, 0, 2, 3), (4, 33, 1, 7), (2, 2, 3, 100), (3, 1, 5, 650)), ids=str)
@pytest.mark.parametrize(("name", "backend"), cases())
def test_any_size(name, backend, sizes, device):
    steps, batch, features, hidden = sizes
    found = []
    for chosen in (backend, "reference"):
        torch.manual_seed(2)
        module = layer(name, features, hidden, backend=chosen, device=device, **LIKE)
        input = torch.randn(steps, batch, features, device=device, requires_grad=True, **LIKE)
        hx = random_states(name, 1, batch, hidden, device=device, requires_grad=True, **LIKE)
        outputs = results(module, input, hx)
        found.append([*outputs, *gradients(outputs, [input, *hx, *module.parameters()])])
    assert found[0][0].shape == (steps, batch, hidden)
    assert_equal_to(found[0], found[1])


@pytest.mark.parametrize(("name", "backend"), cases())
def test_extreme_inputs_stay_finite(name, backend, device):
    module = layer(name, F, H, backend=backend, device=device)
    input = torch.tensor([1e4, -1e4, 1e4, -1e4], device=device).expand(T, B, F).clone().requires_grad_()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(0.1)
    outputs = results(module, input, random_states(name, 1, B, H, device=device))
    for tensor in [*outputs, *gradients(outputs, [input, *module.parameters()])]:
        assert torch.isfinite(tensor).all()
