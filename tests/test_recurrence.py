"""One layer in one direction: every backend's engine equals the reference, whatever is asked of it at once."""

import itertools

import pytest
import torch
from support import assert_equal_to, backends, gradients, random_states

from seqcells import functional
from seqcells.cells import REGISTRY
from seqcells.weights import Weights

T, B, H = 4, 3, 5
KINDS = [(name, size) for name, cell in REGISTRY.items() for size in ((0, 2) if cell.projection else (0,))]
ENGINES = [name for name in backends("lstm", form="recurrence", options=("lengths", "reset")) if name != "reference"]


def problem(name, proj_size, bias, given_reset, device):
    """Differentiable inputs of a recurrence: gates_x, states, weights, reset states."""
    like = {"dtype": torch.float64, "device": device, "requires_grad": True}
    cell = REGISTRY[name]
    roles = Weights.roles(cell, bias, proj_size > 0)
    weights = [torch.randn(Weights.shape(role, cell, 1, H, proj_size), **like) for role in roles]
    fresh = random_states(name, B, H, proj_size=proj_size, **like) if given_reset else None
    gates_x = torch.randn(T, B, len(cell.gates) * H, **like)
    return gates_x, random_states(name, B, H, proj_size=proj_size, **like), Weights.of(roles, weights).recurrent, fresh


@pytest.mark.parametrize("reverse", (False, True), ids=("forwards", "backwards"))
@pytest.mark.parametrize("options", [*itertools.product((False, True), repeat=2)], ids=("", "reset", "lengths", "both"))
@pytest.mark.parametrize(("name", "proj_size"), KINDS)
@pytest.mark.parametrize("backend", ENGINES)
def test_equals_the_reference(backend, name, proj_size, options, reverse, device):
    lengths, reset = options
    gates_x, states, weights, fresh = problem(name, proj_size, not lengths, reset and reverse, device)
    given = {
        "lengths": torch.tensor([3, 0, 4], device=device) if lengths else None,
        "reset": torch.tensor([[1, 0, 0], [0, 1, 1], [1, 0, 0], [0, 1, 1]], device=device).bool() if reset else None,
    }
    found = []
    for chosen in (backend, "reference"):
        output, final = functional.recurrence(
            REGISTRY[name], gates_x, states, weights, reset_states=fresh, reverse=reverse, backend=chosen, **given
        )
        inputs = [gates_x, *states, *weights.present(), *(fresh or ())]
        found.append([output, *final, *gradients([output, *final], inputs)])
    assert_equal_to(*found)


@pytest.mark.parametrize("backend", ENGINES)
@pytest.mark.parametrize("name", REGISTRY)
def test_nothing_is_kept_without_gradients(backend, name, device):
    gates_x, states, weights, _ = problem(name, 0, True, False, device)
    arguments = (name, gates_x, states, weights.hh, weights.bias_hh, None, list(weights.unit), None, None, [], False)
    output, _, saved = torch.ops.seqcells.recurrence(*arguments, backend, False)
    assert not any(tensor.numel() for tensor in saved)
    assert_equal_to([output], [torch.ops.seqcells.recurrence(*arguments, "reference", True)[0]])
