"""Cells of several stages on the Triton engine against the reference, in a child process that interprets."""

import os
from importlib.util import find_spec

import pytest
import torch
from support import assert_equal_to, distance
from test_triton import run_interpreted

import seqcells
from seqcells import cells, dispatch, ops
from seqcells.recurrence import Recurrence
from seqcells.weights import Weights

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
here = pytest.mark.skipif(not INTERPRETED, reason="runs in the child process")

if INTERPRETED:
    import concurrent_programs

CELLS = {
    cell.name: cell
    for cell in (
        cells.GRUResetBefore,
        cells.MGU,
        cells.MultiplicativeLSTM,
        cells.RecurrentHighway,
        cells.LayerNormLSTM,
        cells.LayerNormGRU,
        cells.BlockGRU,
        cells.BlockGRU.configured(heads=2),
        cells.MultiHeadSLSTM,
    )
}
PLAIN = "gru_reset_before"
FORMS = {
    "plain": {},
    "lengths": {"lengths": True},
    "resets": {"resets": True},
    "both backwards": {"lengths": True, "resets": True, "reverse": True},
    "both, two directions": {"lengths": True, "resets": True, "directions": 2},
}
every_cell = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == PLAIN else pytest.mark.heavy) for name in CELLS]
)


@pytest.mark.skipif(INTERPRETED, reason="this is the child process")
def test_in_a_process_that_interprets():
    run_interpreted("test_triton_stages.py -m 'not heavy'")


@pytest.mark.heavy
@pytest.mark.skipif(INTERPRETED, reason="this is the child process")
def test_the_rest_in_a_process_that_interprets():
    run_interpreted("test_triton_stages.py -m heavy")


def layer(
    name, dtype=torch.float64, steps=3, batch=3, hidden=24, directions=1, lengths=False, resets=False, reverse=False,
    bias=True, features=0,
):  # fmt: skip
    """A recurrence of random tensors that want gradients; of an input, if it has features."""
    generator, cell = torch.Generator().manual_seed(steps), CELLS[name]

    def randn(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    def states():
        made = [randn(directions, batch, hidden) for _ in cell.states]
        made = [state.abs() + 0.5 if key == "n" else state for key, state in zip(cell.states, made, strict=True)]
        return [state.to(dtype).requires_grad_() for state in made]

    def weights():
        roles = Weights.roles(cell, bias, False)
        shapes = [Weights.shape(role, cell, features or 1, hidden, 0) for role in roles]
        tensors = [(randn(*shape) / hidden**0.5).to(dtype).requires_grad_() for shape in shapes]
        return Weights.of(roles, tensors) if features else Weights.of(roles, tensors).recurrent

    width = features or directions * len(cell.gates) * hidden
    outside = randn(steps, batch, width).to(dtype).requires_grad_()
    q = Recurrence(cell, None if features else outside, states(), [weights() for _ in range(directions)])
    q = q._replace(reverse=reverse, input=outside if features else None)
    if lengths:
        q = q._replace(lengths=torch.tensor([steps, 0, steps - 1, 1][:batch]))
    if resets:
        reset = torch.rand(steps, batch, generator=generator) < 0.4
        reset[-1, 0] = True
        q = q._replace(reset=reset, reset_states=states())
    return q


def results(q, backend):
    """Output, final states and all gradients."""
    output, final = ops.recurrence(q, backend)
    outputs, leaves = [output, *final], q.differentiable()
    generator = torch.Generator().manual_seed(1)
    seeds = [torch.randn(o.shape, generator=generator, dtype=torch.float64).to(o.dtype) for o in outputs]
    found = torch.autograd.grad(outputs, leaves, seeds, allow_unused=True, materialize_grads=True)
    return [each.detach() for each in (*outputs, *found)]


@here
@every_cell
@pytest.mark.parametrize("form", FORMS)
def test_steps_as_the_reference(name, form):
    """Results and every gradient, of sequences without a step too, and of units that fill no tile."""
    q = layer(name, **FORMS[form])
    assert_equal_to(results(q, "triton-stepwise"), results(q, "reference"), 1e-10)


@here
@every_cell
def test_from_an_input_without_biases_by_the_plan_that_is_chosen(name):
    q = layer(name, hidden=8, features=5, bias=False, directions=2)
    assert_equal_to(results(q, "triton"), results(q, "reference"), 1e-10)


@here
@pytest.mark.heavy
@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16, torch.float16), ids=str)
@pytest.mark.parametrize("name", CELLS)
def test_as_near_to_float64_as_the_reference(name, dtype):
    """Products are of the storage's dtype, states are carried in float32."""
    q = layer(name, dtype, steps=4, lengths=True, resets=True, directions=2)
    exact = q.replaced([t.detach().double().requires_grad_() for t in q.differentiable()])
    found, judged, truth = results(q, "triton-stepwise"), results(q, "reference"), results(exact, "reference")
    for mine, other, true in zip(found, judged, truth, strict=True):
        assert mine.dtype == dtype
        assert distance(mine, true) <= max(4 * torch.finfo(dtype).eps, 2 * distance(other, true))


@here
@pytest.mark.parametrize(("name", "launches"), [("layer_norm_lstm", 1), ("recurrent_highway", 3), ("block_gru", 1)])
def test_a_launch_for_each_stage_that_begins_with_a_product(name, launches, monkeypatch):
    """Reductions cost none: counted by hand from the equations, and one more launch before the first step."""
    from seqcells.kernels.triton import launch

    seen, call = [], launch.Launch.__call__

    def watched(self, start, stop):
        seen.append(start)
        return call(self, start, stop)

    monkeypatch.setattr(launch.Launch, "__call__", watched)
    with torch.no_grad():
        ops.recurrence(layer(name, steps=5), "triton-stepwise")
    assert len(seen) == 1 + 5 * launches


@pytest.fixture
def divided(monkeypatch):
    """A program for every eight hidden units."""
    from seqcells.kernels.triton import staged_divisions

    def divide(groups=4, directions=2):
        def division(hidden, batch, sides, *rest):
            tile = {"ROWS": 16, "UNITS": 8, "BLOCKS": 4, "DIVISOR": 1, "SHARED": hidden > 24, "num_warps": 8}
            return staged_divisions.Division(tile, -(-hidden // 8), groups, min(sides, directions))

        monkeypatch.setattr(staged_divisions, "division", division)

    divide()
    return divide


def check_meeting(q, programs, **how):
    with concurrent_programs.concurrent(**how) as launched:
        found = results(q, "triton-persistent")
    assert launched == programs
    assert_equal_to(found, results(q, "reference"), 1e-10)


@here
@every_cell
@pytest.mark.parametrize("form", FORMS)
def test_programs_together_equal_the_reference(name, form, divided):
    """In three steps: what is exchanged in the third takes the place of the first's."""
    programs = 4 if CELLS[name].heads() > 1 else 3
    if CELLS[name].heads() > programs:
        pytest.skip("a program would have units of two heads")
    q = layer(name, hidden=8 * programs, **FORMS[form])
    check_meeting(q, [programs * len(q.weights)] * 2)


@here
def test_its_plan_says_so():
    gru, _ = seqcells.define(cells.GRUResetBefore)
    module = gru(8, 8, backend="triton", dtype=torch.float64)
    assert "by stepwise" in module.plan(torch.zeros(3, 2, 8, dtype=torch.float64)).reason


@here
def test_what_is_not_printed_is_refused_by_name():
    deeper = cells.RecurrentHighway.configured(depth=5)
    call = dispatch.Call(deeper, "recurrence", torch.device("cpu"), torch.float64, ())
    for backend in ("triton", "triton-stepwise", "triton-persistent"):
        with pytest.raises(RuntimeError, match=r"no kernels have been derived for the recurrent_highway\[depth=5\]"):
            dispatch.choose(call, backend)
