"""The loop of kernels/cpu runs any printed program, forward and backward, as the reference does."""

import pytest
import torch
from loop import TARGETS, Loop, needs_compiler
from support import distance

from seqcells import cells, reference
from seqcells.cells import REGISTRY
from seqcells.recurrence import Recurrence
from seqcells.weights import Weights

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

pytestmark = needs_compiler
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
    return output.to(q.gates_x.dtype), [final.to(q.gates_x.dtype) for final in finals]


def by_reference(q):
    """Results and gradients by name, as the loop names them."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in q.differentiable()]
    output, final = reference.layer(q.replaced(leaves))
    grad_output, grad_final = seeds(q)
    flat = torch.autograd.grad([output, *final], leaves, [grad_output, *grad_final], materialize_grads=True)
    g, found = q.replaced(flat), {"output": output}
    found |= {f"final.{state}": value[0] for state, value in zip(q.cell.states, final, strict=True)}
    found |= {f"initial.{state}": value[0] for state, value in zip(q.cell.states, g.states, strict=True)}
    found |= {f"fresh.{state}": value[0] for state, value in zip(q.cell.states, g.reset_states or (), strict=False)}
    w, d = q.weights[0], g.weights[0]
    found |= {"weight_hh": d.hh, "bias_hh": d.bias_hh, **d.named(q.cell)}
    found |= {"gates_x": g.gates_x, "bias_ih": g.gates_x.sum((0, 1))}
    assert len(w.own) == len(d.own)
    return {name: value.detach() for name, value in found.items() if value is not None}


def by_loop(loop, q, threads=1):
    arrays = loop.forward(q, threads)
    grads = loop.backward(q, arrays, *seeds(q), threads)
    results = {name: value for name, value in arrays.items() if name == "output" or name.startswith("final.")}
    return {**grads, **results}


@every_cell
@pytest.mark.parametrize(
    "target", [t if t != "portable" else pytest.param(t, marks=pytest.mark.heavy) for t in TARGETS]
)
def test_as_the_reference(name, target):
    loop = Loop(CELLS[name], target, False)
    for size in SIZES:
        for lengths, resets in WHEN.values():
            for reverse in (False, True):
                q = problem(name, size, lengths, resets, reverse)
                found, truth = by_loop(loop, q, threads=1 + reverse), by_reference(q)
                for key, value in truth.items():
                    scale = value.abs().clamp_min(1)
                    error = ((found[key] - value).abs() / scale).max().item()
                    assert error <= 1e-11, (size, lengths, resets, reverse, key, error)


@every_cell
@pytest.mark.parametrize("when", WHEN)
def test_same_bits_for_any_number_of_threads(name, when):
    loop = Loop(CELLS[name], [*TARGETS][-1], False)
    q = problem(name, "many", *WHEN[when], False)
    alone = by_loop(loop, q)
    for threads in (2, 3, 5):
        together = by_loop(loop, q, threads)
        assert all(torch.equal(together[key], alone[key]) for key in alone if not alone[key].isnan().any())


@pytest.mark.heavy
@pytest.mark.parametrize("name", CELLS)
def test_as_near_to_float64_as_the_reference(name):
    loop = Loop(CELLS[name], [*TARGETS][-1], True)
    q = problem(name, "many", True, True, False, torch.float32)
    wide = q.replaced([tensor.double() for tensor in q.differentiable()])
    found, judged, truth = by_loop(loop, q), by_reference(q), by_reference(wide)
    for key, value in truth.items():
        least = 4 * torch.finfo(torch.float32).eps
        assert distance(found[key], value) <= 2 * distance(judged[key], value) + least, key
