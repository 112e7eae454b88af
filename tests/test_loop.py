"""The loop of kernels/cpu runs any printed program, forward and backward, as the reference does."""

import pytest
import torch
from support import distance, needs_compiler

from seqcells import cells, execute, reference
from seqcells.cells import REGISTRY
from seqcells.kernels import cpu
from seqcells.recurrence import Backward, Recurrence
from seqcells.weights import Weights

if not cpu.unavailable():
    from seqcells.kernels.cpu import call, engine

OTHERS = (
    cells.GRUResetBefore,
    cells.LayerNormLSTM,
    cells.LayerNormGRU,
    cells.MGU,
    cells.MultiplicativeLSTM,
    cells.RecurrentHighway,
    cells.BlockGRU.configured(heads=4),
    cells.MultiHeadSLSTM.configured(heads=2),
)
CELLS = REGISTRY | {cell.name: cell for cell in OTHERS}
PLAIN = "gru_reset_before"
SIZES = {"odd": (5, 3, 20), "one": (1, 1, 8), "many": (4, 30, 40)}
WHEN = {"": (False, False), "lengths": (True, False), "resets": (False, True), "both": (True, True)}

pytestmark = [needs_compiler, pytest.mark.usefixtures("compiling", "by_loop_alone")]


@pytest.fixture
def by_loop_alone(monkeypatch):
    """The loop runs cells, too, that the engine was built with."""
    monkeypatch.setattr(call, "built", lambda *_: None)


every_cell = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == PLAIN else pytest.mark.heavy) for name in CELLS]
)


def problem(name, size, lengths, resets, reverse, dtype=torch.float64):
    """A recurrence in one direction, of random tensors."""
    cell, (steps, batch, hidden) = CELLS[name], SIZES[size]
    generator = torch.Generator().manual_seed(steps)

    def randn(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    def states():
        made = [randn(1, batch, hidden) for _ in cell.states]
        return [state.abs() + 0.5 if key == "n" else state for key, state in zip(cell.states, made, strict=True)]

    roles = Weights.roles(cell, True, False)
    weights = Weights.of(roles, [randn(*Weights.shape(role, cell, 1, hidden, 0)) / hidden**0.5 for role in roles])
    q = Recurrence(cell, randn(steps, batch, len(cell.gates) * hidden), states(), (weights.recurrent,), reverse=reverse)
    if lengths:
        q = q._replace(lengths=torch.randint(0, steps + 1, (batch,), generator=generator))
    if resets:
        q = q._replace(reset=torch.rand(steps, batch, generator=generator) < 0.3, reset_states=states())
    return q


def seeds(q):
    generator = torch.Generator().manual_seed(7)
    steps, batch, _ = q.gates_x.shape
    output = torch.randn(steps, batch, q.hidden, generator=generator, dtype=torch.float64)
    finals = [torch.randn(state.shape, generator=generator, dtype=torch.float64) for state in q.states]
    return [each.to(q.gates_x.dtype) for each in (output, *finals)]


def by_reference(q):
    """Output, final states and all gradients."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in q.differentiable()]
    output, final = reference.layer(q.replaced(leaves))
    grads = torch.autograd.grad([output, *final], leaves, seeds(q), materialize_grads=True)
    return [tensor.detach() for tensor in (output, *final, *grads)]


def by_loop(q):
    """The same."""
    output, final, saved = engine.forward(q, True)
    wanted = q.replaced([True] * len(q.differentiable()))
    grad_output, *grad_final = seeds(q)
    grads = engine.backward(q, Backward(output, saved, grad_output, grad_final, wanted))
    return [output, *final, *grads]


@every_cell
def test_as_the_reference(name, target, threads):
    for size in SIZES:
        for lengths, resets in WHEN.values():
            for reverse in (False, True):
                threads(1 + reverse)
                q = problem(name, size, lengths, resets, reverse)
                for place, (found, truth) in enumerate(zip(by_loop(q), by_reference(q), strict=True)):
                    error = ((found - truth).abs() / truth.abs().clamp_min(1)).max().item()
                    assert error <= 1e-11, (size, lengths, resets, reverse, place, error)


@every_cell
def test_the_input_may_be_projected_inside(name):
    for size in SIZES:
        q = problem(name, size, True, True, True)
        features = len(q.cell.gates) * q.hidden
        weights = q.weights[0]._replace(ih=torch.randn(features, 5).double(), bias_ih=torch.randn(features).double())
        q = q._replace(gates_x=None, input=torch.randn(*q.gates_x.shape[:2], 5).double(), weights=(weights,))
        output, final, _ = engine.forward(q, False)
        judged = reference.layer(execute.projected(q))
        for found, truth in zip((output, *final), (judged[0], *judged[1]), strict=True):
            assert ((found - truth).abs() / truth.abs().clamp_min(1)).max() <= 1e-11


@every_cell
@pytest.mark.parametrize("when", WHEN)
def test_same_bits_for_any_number_of_threads(name, when, threads):
    threads(1)
    q = problem(name, "many", *WHEN[when], False)
    alone = by_loop(q)
    for count in (2, 3, 5):
        threads(count)
        assert all(map(torch.equal, by_loop(q), alone))


@pytest.mark.heavy
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", CELLS)
def test_as_near_to_float64_as_the_reference(name, dtype, target):
    q = problem(name, "many", True, True, False, dtype)
    wide = q.replaced([tensor.double() for tensor in q.differentiable()])
    for place, (found, judged, truth) in enumerate(zip(by_loop(q), by_reference(q), by_reference(wide), strict=True)):
        least = 4 * torch.finfo(dtype).eps
        assert distance(found, truth) <= 2 * distance(judged, truth) + least, place
