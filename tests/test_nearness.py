"""The nearness tests find errors in an implementation, and pass unlucky draws."""

import kinks
import nearness
import pytest
import torch
from support import TORCH_LAYERS, assert_equal_to, gradients, random_states, results
from torch.nn import functional

from seqcells.backends import reference

SIZES = (40, 8, 32, 48)


def rounded(tensor, bits):
    """float32 rounded to nearest without its last ``bits`` bits; the gradient ignores the rounding."""
    nearest = (tensor.detach().view(torch.int32) + (1 << bits - 1)) & -(1 << bits)
    return tensor + (nearest.view(torch.float32) - tensor).detach()


def of_tf32(input, weight, bias=None):
    return functional.linear(rounded(input, 13), rounded(weight, 13), bias)


def summed_in_bfloat16(input, weight, bias=None):
    total = torch.zeros(()) if bias is None else bias
    for k in range(input.shape[-1]):
        total = rounded(total + input[..., k : k + 1] * weight[:, k], 16)
    return total


FAULTS = [(name, of_tf32, torch.float32, {"output", "input", "weight_hh_l0"}) for name in TORCH_LAYERS]
# The LSTM and the GRU are left out: torch's own loop on a CPU rounds half precision as often for them.
FAULTS += [(name, summed_in_bfloat16, torch.bfloat16, {"output", "h_n"}) for name in ("rnn_tanh", "rnn_relu")]


@pytest.mark.parametrize(("name", "linear", "dtype", "expected"), FAULTS)
def test_a_fault_is_found(name, linear, dtype, expected, monkeypatch):
    assert not nearness.too_far(name, "reference", SIZES, dtype)
    monkeypatch.setattr(reference, "linear", linear)
    monkeypatch.setattr(nearness, "DRAWS", 1)
    assert expected <= {*nearness.too_far(name, "reference", SIZES, dtype)}


def test_what_one_draw_finds_is_looked_for_in_others(monkeypatch):
    asked = []

    def ratios(*args, seeds=None, **options):
        asked.append([*args[-1]])
        return {"output": 1.4, "lucky": 1.0, "unlucky": 1.6 if args[-1] == [0] else 1.2, "wrong": 1.6}

    monkeypatch.setattr(nearness, "ratios", ratios)
    assert nearness.too_far("gru", "cpu", SIZES, torch.float32) == {"wrong": 1.6}
    assert asked == [[0], [1, 2, 3, 4, 5, 6, 7, 8]]


@pytest.fixture(params=(False, True), ids=("one direction", "both"))
def layer_of_relus(request):
    """torch.nn's layer in float64, its input and initial states."""
    module = TORCH_LAYERS["rnn_relu"](4, 5, bidirectional=request.param, dtype=torch.float64)
    states = random_states("rnn_relu", 1 + request.param, 3, 5, dtype=torch.float64, requires_grad=True)
    return module, torch.randn(6, 3, 4, dtype=torch.float64, requires_grad=True), states


def test_on_its_own_sides_a_layer_of_relus_is_itself(layer_of_relus):
    module, input, hx = layer_of_relus
    leaves, found = [input, *hx, *module.parameters()], []
    expected = results(module, input, hx)
    for outputs in (expected, kinks.on_the_sides_of(expected[0], module, input, hx)):
        found.append([*outputs, *gradients(outputs, leaves)])
    assert_equal_to(found[1], found[0])


def test_on_another_side_the_gradient_has_jumped(layer_of_relus):
    """The gradient changes as much as a sum near zero could change it: an element that passed nothing passes its
    gradient."""
    module, input, hx = layer_of_relus
    output, _ = results(module, input, hx)
    other = output.detach().clone()
    other[-1, 0, :5] = 1.0
    expected, jumped = (
        torch.autograd.grad(kinks.on_the_sides_of(sides, module, input, hx)[0][-1, 0, :5].sum(), module.bias_hh_l0)[0]
        for sides in (output, other)
    )
    passing = (output[-1, 0, :5] > 0).double()
    assert 0 < passing.sum() < 5
    assert not torch.allclose(jumped, expected)


def test_sequences_with_a_sum_near_zero_are_left_out():
    """One sum in the second layer's backward direction is set to zero by the bias of its unit alone."""
    module = TORCH_LAYERS["rnn_relu"](4, 5, 2, bidirectional=True, dtype=torch.float64)
    input, (h_0,) = torch.randn(6, 9, 4, dtype=torch.float64), random_states("rnn_relu", 4, 9, 5, dtype=torch.float64)
    assert kinks.clear_sequences(module, input, h_0).tolist() == [*range(9)]
    below = TORCH_LAYERS["rnn_relu"](4, 5, bidirectional=True, dtype=torch.float64)
    below.load_state_dict({key: value for key, value in module.state_dict().items() if "_l0" in key})
    with torch.no_grad():
        read = below(input, h_0[:2])[0][-1, 3]  # the first input of the backward direction
        w_ih, w_hh, b_ih, b_hh = (
            getattr(module, f"{n}_l1_reverse") for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        b_ih[2] -= (w_ih @ read + b_ih + w_hh @ h_0[3, 3] + b_hh)[2]
    assert kinks.clear_sequences(module, input, h_0).tolist() == [0, 1, 2, 4, 5, 6, 7, 8]
