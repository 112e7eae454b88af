"""First and second derivatives against finite differences, in float64, with and without boundaries."""

import pytest
import torch
from support import MAIN, cases, heavy_if, plain_if, random_states
from torch.autograd import gradcheck, gradgradcheck

from seqcells import functional
from seqcells.call.run import recurrence
from seqcells.cells import REGISTRY
from seqcells.request.recurrence import Recurrence
from seqcells.request.weights import Weights

T, B, H, P = 3, 2, 3, 2
LIKE = {"dtype": torch.float64, "requires_grad": True}


def problem(name, boundaries, projected=False):
    """One layer in one direction as a function of all its differentiable inputs, and such inputs."""
    cell = REGISTRY[name]
    roles = Weights.roles(cell, bias=True, projection=projected)
    weights = Weights.of(roles, [torch.randn(Weights.shape(r, cell, 1, H, P * projected), **LIKE) for r in roles])
    weights = weights.recurrent
    states = random_states(name, B, H, proj_size=P * projected, **LIKE)
    fresh = random_states(name, B, H, proj_size=P * projected, **LIKE) if boundaries else []
    gates_x = torch.randn(T, B, len(cell.gates) * H, **LIKE)
    lengths, reset = None, None
    if boundaries:
        lengths, reset = torch.tensor([3, 2]), torch.tensor([[False, True], [True, False], [False, False]])
    inputs = [gates_x, *states, *weights.present(), *fresh]

    def split(tensors):
        n, m = 1 + len(states), len(tensors) - len(fresh)
        return tensors[0], tensors[1:n], weights.replaced(tensors[n:m]), tensors[m:] or None

    def run(how, *tensors):
        gates_x, states, weights, fresh = split(tensors)
        return how(cell, gates_x, states, weights, lengths, reset, fresh)

    return run, inputs


def named(backend):
    def run(cell, gates_x, states, weights, lengths, reset, fresh):
        output, final = functional.recurrence(
            cell,
            gates_x,
            states,
            weights,
            lengths=lengths,
            reset=reset,
            reset_states=fresh,
            reverse=True,
            backend=backend,
        )
        return (output, *final)

    return run


def operator(backend):
    def run(cell, gates_x, states, weights, lengths, reset, fresh):
        one = [state.unsqueeze(0) for state in states]
        fresh = fresh and [state.unsqueeze(0) for state in fresh]
        output, final = recurrence(Recurrence(cell, gates_x, one, [weights], lengths, reset, fresh, True), backend)
        return (output, *final)

    return run


@plain_if(lambda name, boundaries, **_: boundaries == (name in MAIN))
@pytest.mark.parametrize("boundaries", (False, True))
@pytest.mark.parametrize(("name", "backend"), cases(form="recurrence", options=("lengths", "reset")))
def test_recurrence(name, backend, boundaries):
    run, inputs = problem(name, boundaries)
    assert gradcheck(lambda *t: run(named(backend), *t), inputs)
    assert gradgradcheck(lambda *t: run(named(backend), *t), inputs)


@plain_if(lambda name, boundaries, **_: boundaries and name in MAIN)
@heavy_if(lambda name, boundaries, **_: boundaries or name in MAIN)  # every other cell has one form
@pytest.mark.parametrize("boundaries", (False, True))
@pytest.mark.parametrize(("name", "backend"), cases(form="recurrence", options=("lengths", "reset")))
def test_operator(name, backend, boundaries):
    run, inputs = problem(name, boundaries)
    assert gradcheck(lambda *t: run(operator(backend), *t), inputs)
    assert gradgradcheck(lambda *t: run(operator(backend), *t), inputs)


@plain_if(lambda name, **_: name in MAIN)
@pytest.mark.parametrize("backend", ("reference",))
@pytest.mark.parametrize("name", [name for name, cell in REGISTRY.items() if cell.projection])
def test_projection(name, backend):
    run, inputs = problem(name, True, projected=True)
    for how in (named(backend), operator(backend)):
        assert gradcheck(lambda *t, how=how: run(how, *t), inputs)
        assert gradgradcheck(lambda *t, how=how: run(how, *t), inputs)


@pytest.mark.parametrize("name", REGISTRY)
def test_third_derivative_exists(name):
    run, inputs = problem(name, True)
    total = sum(o.sin().sum() for o in run(operator("reference"), *inputs))
    for _ in range(3):
        (total,) = torch.autograd.grad(total, inputs[0], create_graph=True)
        assert torch.isfinite(total).all()
        total = total.square().sum()
