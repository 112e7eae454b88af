"""One layer, in one direction or both: every backend's engine equals the reference, for any combination of options."""

import itertools

import pytest
import torch
from support import MAIN, assert_equal_to, backends, gradients, plain_if, random_states

from seqcells import functional
from seqcells.backends import engine_of
from seqcells.call import operators, run
from seqcells.cells import REGISTRY
from seqcells.request.recurrence import Recurrence
from seqcells.request.weights import Weights

T, B, H = 4, 3, 5
ENGINES = [name for name in backends("lstm", form="recurrence", options=("lengths", "reset")) if name != "reference"]
KINDS = [
    (backend, name, size)
    for backend in ENGINES
    for name, cell in REGISTRY.items()
    for size in ((0, 2) if cell.projection else (0,))
    if not size or backend in backends(name, form="recurrence", options=("lengths", "reset", "projection"))
]


def problem(name, directions, proj_size, bias, given_reset, device):
    """Differentiable inputs of a recurrence: gates_x, states, weights of each direction, reset states."""
    like = {"dtype": torch.float64, "device": device, "requires_grad": True}
    cell = REGISTRY[name]
    roles = Weights.roles(cell, bias, proj_size > 0)

    def weights():
        tensors = [torch.randn(Weights.shape(role, cell, 1, H, proj_size), **like) for role in roles]
        return Weights.of(roles, tensors).recurrent

    def states():
        return random_states(name, directions, B, H, proj_size=proj_size, **like)

    gates_x = torch.randn(T, B, directions * len(cell.gates) * H, **like)
    return Recurrence(
        cell,
        gates_x,
        states(),
        [weights() for _ in range(directions)],
        reset_states=states() if given_reset else None,
    )


@plain_if(lambda name, options, ways, **_: name in MAIN or (all(options) and ways == "both"))
@pytest.mark.parametrize("ways", ("forwards", "backwards", "both"))
@pytest.mark.parametrize("options", [*itertools.product((False, True), repeat=2)], ids=("", "reset", "lengths", "both"))
@pytest.mark.parametrize(("backend", "name", "proj_size"), KINDS)
def test_equals_the_reference(backend, name, proj_size, options, ways, device):
    lengths, reset = options
    q = problem(name, 2 if ways == "both" else 1, proj_size, not lengths, reset and ways != "forwards", device)
    q = q._replace(
        lengths=torch.tensor([3, 0, 4], device=device) if lengths else None,
        reset=torch.tensor([[1, 0, 0], [0, 1, 1], [1, 0, 0], [0, 1, 1]], device=device).bool() if reset else None,
        reverse=ways == "backwards",
    )
    found = []
    for chosen in (backend, "reference"):
        output, final = run.recurrence(q, chosen)
        found.append([output, *final, *gradients([output, *final], q.differentiable())])
    assert_equal_to(*found)


@pytest.mark.parametrize("backend", ENGINES)
@pytest.mark.parametrize("name", REGISTRY)
def test_nothing_is_kept_without_gradients(backend, name, device):
    q = problem(name, 1, 0, True, False, device)
    with torch.no_grad():
        output, *final = torch.ops.seqcells.recurrence(*operators.arguments(q, backend))
    assert len(final) == len(q.states)
    assert_equal_to([output], [run.recurrence(q, "reference")[0]])


@pytest.mark.parametrize("backend", ENGINES)
def test_nothing_is_kept_without_gradients_called_from_python(backend, device, monkeypatch):
    q = problem("lstm", 1, 0, True, False, device)
    engine, asked = engine_of(backend), []
    forward = engine.forward
    monkeypatch.setattr(engine, "forward", lambda q, save: (asked.append(save), forward(q, save))[1])
    with torch.no_grad():
        run.recurrence(q, backend)
    run.recurrence(q, backend)
    assert asked == [False, True]


@pytest.mark.parametrize("backend", ENGINES)
@pytest.mark.parametrize("changed", ("lengths", "reset"))
def test_a_change_before_backward_is_noticed(backend, changed, device):
    q = problem("gru", 1, 0, True, False, device)
    given = {"lengths": torch.tensor([3, 0, 4], device=device), "reset": torch.zeros(T, B, device=device).bool()}
    output, _ = run.recurrence(q._replace(**given), backend)
    given[changed].fill_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


@pytest.mark.parametrize("backend", ENGINES)
@pytest.mark.parametrize("change", ("states", "weights", "lengths", "reset", "kind of reset", "gates_x", "steps"))
def test_what_does_not_fit_together_is_refused(backend, change, device):
    if (backend, device) == ("triton-persistent", "cuda"):
        pytest.skip("its kernels are not for float64")
    q = problem("lstm", 1, 0, True, False, device)
    with torch.no_grad():
        (weights,), lengths = q.weights, torch.tensor([3, 0, 4], device=device)
        wrong = {
            "states": {"states": [state[:, :2] for state in q.states]},
            "weights": {"weights": [weights._replace(hh=weights.hh[:5])]},
            "lengths": {"lengths": lengths[:2]},
            "reset": {"reset": torch.zeros(T, B + 1, device=device).bool()},
            "kind of reset": {"reset": torch.zeros(T, B, device=device)},
            "gates_x": {"gates_x": q.gates_x[..., 1:]},
            "steps": {"gates_x": q.gates_x[:0]},
        }
        q = q._replace(**wrong[change])
        rest = {"lengths": q.lengths, "reset": q.reset, "backend": backend}
        with pytest.raises((RuntimeError, TypeError), match=r"^(Expected|reset should)"):
            functional.recurrence(q.cell, q.gates_x, [state[0] for state in q.states], q.weights[0], **rest)


def _by_operator(q):
    return torch.ops.seqcells.recurrence(*operators.arguments(q, "auto"))


def _on_meta(q):
    return _by_operator(q.replaced([tensor.to("meta") for tensor in q.differentiable()]))


def _differentiated(q):
    return _by_operator(q.replaced([tensor.detach().requires_grad_() for tensor in q.differentiable()]))


def _transformed(q):
    return torch.func.grad(lambda x: _by_operator(q._replace(gates_x=x))[0].sum())(q.gates_x)


def _batched(q):
    return torch.vmap(lambda x: _by_operator(q._replace(gates_x=x))[0])(q.gates_x.expand(2, *q.gates_x.shape))


@pytest.mark.parametrize("way", (_by_operator, _on_meta, _differentiated, _transformed, _batched))
def test_states_of_no_units_are_told_the_same_in_every_way(way):
    """The weights have gates of six units, and the states have no units."""
    weights = Weights(hh=torch.zeros(18, 6), bias_hh=torch.zeros(18))
    q = Recurrence(REGISTRY["gru"], torch.zeros(5, 3, 18), [torch.zeros(1, 3, 0)], (weights,))
    with pytest.raises(RuntimeError, match=r"Expected gates_x of size \(5, \d, 0\), got \[5, \d, 18\]"):
        way(q)
