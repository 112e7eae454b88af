"""Several layers at once in the persistent plan, each a step behind the one below it, in a child process."""

import os
from importlib.util import find_spec

import pytest
import torch
from support import assert_equal_to, gradients
from test_triton import run_interpreted

from seqcells import ops
from seqcells.cells import REGISTRY
from seqcells.recurrence import Recurrence
from seqcells.weights import Weights

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
here = pytest.mark.skipif(not INTERPRETED, reason="runs in the child process")

if INTERPRETED:
    import concurrent_programs

T, B, H = 4, 3, 19  # two blocks of 16 units, the last one of 3


@pytest.mark.skipif(INTERPRETED, reason="this is the child process")
def test_in_a_process_that_interprets():
    run_interpreted("test_triton_wavefront.py -m 'not heavy'")


@pytest.mark.heavy
@pytest.mark.skipif(INTERPRETED, reason="this is the child process")
def test_the_rest_in_a_process_that_interprets():
    run_interpreted("test_triton_wavefront.py -m heavy")


@pytest.fixture
def divided(monkeypatch):
    """Programs of 16 units and rows; of more rows than ``groups`` have a launch after."""
    from seqcells.kernels.triton import configurations

    def divide(groups=2, **how):
        def division(hidden, batch, directions, gates, recurrent, planes, storage, *rest):
            layers, between = rest[3:] or (directions, 0)
            size = {"units": 16, "rows": 16, "groups": groups, "directions": layers, "parts": 2, "chunk": 32}
            return configurations.division(hidden, recurrent, planes, storage, **{**size, **how}, between=between)

        monkeypatch.setattr(configurations, "persistent", division)

    divide()
    return divide


def stack(name, layers=2, batch=B, steps=T, dtype=torch.float64, hidden=H, seed=0, bias=True, **options):
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape, scale=1.0):
        return (torch.randn(*shape, generator=generator, dtype=torch.float64) * scale).to(dtype).requires_grad_()

    cell = REGISTRY[name]
    roles = Weights.roles(cell, bias, False)
    shapes = [Weights.shape(role, cell, hidden, hidden, 0) for role in roles]
    weights = [Weights.of(roles, [randn(*shape, scale=0.2) for shape in shapes]) for _ in range(layers)]
    states = [[randn(layers, batch, hidden) for _ in cell.states] for _ in range(2)]
    gates_x = randn(steps, batch, len(cell.gates) * hidden)
    q = Recurrence(cell, gates_x, states[0], weights, stacked=True, **options)
    return q._replace(reset_states=states[1]) if q.reset is not None else q


def boundaries(batch, steps=T):
    generator = torch.Generator().manual_seed(7)
    lengths = torch.randint(0, steps + 1, (batch,), generator=generator)
    return {"lengths": lengths, "reset": torch.rand(steps, batch, generator=generator) < 0.3}


def results(q, backend):
    output, final = ops.recurrence(q, backend)
    return [output, *final, *gradients([output, *final], q.differentiable())]


def check(q, programs, backend="triton-persistent"):
    with concurrent_programs.concurrent() as launched:
        found = results(q, backend)
    assert launched == programs
    assert_equal_to(found, results(q, "reference"))


@here
@pytest.mark.parametrize(
    "name",
    ["lstm", "gru", *(pytest.param(name, marks=pytest.mark.heavy) for name in REGISTRY if name not in ("lstm", "gru"))],
)
@pytest.mark.parametrize("given", [{}, boundaries(B)], ids=("plain", "boundaries"))
def test_layers_together_equal_the_reference(name, given, divided):
    check(stack(name, **given), [4, 4])
