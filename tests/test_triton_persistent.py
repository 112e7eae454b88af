"""The persistent plan with several programs and their barrier: in a child process, whose interpreter runs all at once."""

import os
from functools import partial
from importlib.util import find_spec

import pytest
import torch
from support import assert_equal_to, distance, gradients, random_states
from test_triton import run_interpreted

from seqcells import ops
from seqcells.cells import REGISTRY
from seqcells.recurrence import Recurrence
from seqcells.weights import Weights

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
here = pytest.mark.skipif(not INTERPRETED, reason="runs in the child process")

T, B, H = 5, 3, 37  # three blocks of 16 units, the last one of 5; a width of 64, in chunks of 64 or less


@pytest.mark.skipif(INTERPRETED, reason="this is the child process")
def test_in_a_process_that_interprets():
    run_interpreted("test_triton_persistent.py", "not heavy")


@pytest.fixture
def divided(monkeypatch):
    """Three programs for the hidden units, and two for more than 16 sequences: ``divided(groups=1)``, one launch each."""
    from seqcells.kernels.triton import configurations

    def divide(groups=2, rows=16):
        def division(hidden, batch, directions, gates, recurrent, planes, *rest):
            return configurations.division(
                hidden, recurrent, planes, units=16, rows=rows, groups=groups, parts=2, chunk=32
            )

        monkeypatch.setattr(configurations, "persistent", division)

    divide()
    return divide


def layer(name, directions=1, batch=B, steps=T, dtype=torch.float64, seed=0, **options):
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()

    cell = REGISTRY[name]
    roles = Weights.roles(cell, True, False)
    weights = [
        Weights.of(roles, [(randn(*Weights.shape(role, cell, 1, H, 0)) * 0.2).detach().requires_grad_() for role in roles])
        for _ in range(directions)
    ]
    states = [[randn(directions, batch, H) for _ in cell.states] for _ in range(2)]
    gates_x = randn(steps, batch, directions * len(cell.gates) * H)
    q = Recurrence(cell, gates_x, states[0], [w.recurrent for w in weights], **options)
    return q._replace(reset_states=states[1]) if q.reset is not None else q


def boundaries(batch, steps=T):
    generator = torch.Generator().manual_seed(7)
    lengths = torch.randint(0, steps + 1, (batch,), generator=generator)
    return {"lengths": lengths, "reset": torch.rand(steps, batch, generator=generator) < 0.3}


def results(q, backend):
    output, final = ops.recurrence(q, backend)
    return [output, *final, *gradients([output, *final], q.differentiable())]


def check(q, programs):
    from concurrent_programs import concurrent

    with concurrent() as launched:
        found = results(q, "triton-persistent")
    assert launched == programs
    assert_equal_to(found, results(q, "reference"))


@here
@pytest.mark.parametrize("name", REGISTRY)
def test_programs_together_equal_the_reference(name, divided):
    check(layer(name), [3, 3])


@here
@pytest.mark.parametrize("name", ["lstm", "gru", "peephole_lstm"])
def test_boundaries_and_both_directions(name, divided):
    check(layer(name, 2, **boundaries(B)), [6, 6])
