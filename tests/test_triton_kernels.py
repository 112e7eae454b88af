"""The Triton engine's plans against the reference: each cell, dtype and option, in sizes that fill no tile.

These tests run on a GPU, or where Triton interprets its kernels: `test_triton` runs this file in such a process.
"""

import itertools
import os
from importlib.util import find_spec

import pytest
import torch
from support import UNLIKE, distance, heavy_if, plain_if, random_states

import seqcells
from seqcells.backends import reference
from seqcells.cells import REGISTRY
from seqcells.request.recurrence import Backward, Recurrence
from seqcells.request.weights import Weights

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
if find_spec("triton") is None or not (torch.cuda.is_available() or INTERPRETED):
    pytest.skip("needs a GPU, or Triton's interpreter", allow_module_level=True)

from seqcells.kernels.triton.host import configurations, gemm, precision, recompute_window  # noqa: E402
from seqcells.kernels.triton.plans import fused_step, plan, single_launch, single_step, stepwise  # noqa: E402
from seqcells.kernels.triton.plans.shape import Shape  # noqa: E402

DEVICE = "cpu" if INTERPRETED else "cuda"
PLANS = {"stepwise": stepwise, "fused step": fused_step, "single launch": single_launch, "single step": single_step}
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
STEPS, BATCH, HIDDEN = 3, 5, 21


def problem(name, dtype, directions=2, batch=BATCH, hidden=HIDDEN, proj_size=0, boundaries=True, steps=STEPS):
    """A `Recurrence` of random tensors."""
    cell, like = REGISTRY[name], {"device": DEVICE}
    roles = Weights.roles(cell, True, proj_size > 0)

    def weights():
        shapes = [Weights.shape(role, cell, 1, hidden, proj_size) for role in roles]
        return Weights.of(roles, [(torch.randn(shape, **like) / hidden**0.5).to(dtype) for shape in shapes]).recurrent

    def states():
        return [s.to(dtype) for s in random_states(name, directions, batch, hidden, proj_size=proj_size, **like)]

    gates_x = torch.randn(steps, batch, directions * len(cell.gates) * hidden, **like).to(dtype)
    q = Recurrence(cell, gates_x, states(), [weights() for _ in range(directions)])
    if not boundaries:
        return q
    lengths = torch.randint(0, steps + 1, (batch,), **like)
    lengths[0] = steps
    return q._replace(lengths=lengths, reset=torch.rand(steps, batch, **like) < 0.4, reset_states=states())


def by_plan(q, chosen, gradients):
    """Output, final states and all gradients by one of our plans."""
    with torch.no_grad():
        output, final, saved = PLANS[chosen].forward(q, True)
        wanted = q.replaced([True] * len(q.differentiable()))
        given = Backward(output, saved, gradients[0], gradients[1:], wanted)
        return [output, *final, *PLANS[chosen].backward(q, given)]


def by_reference(q, dtype, gradients):
    """Output, final states and all gradients by the reference, with tensors in ``dtype``."""
    leaves = [tensor.to(dtype).requires_grad_() for tensor in q.differentiable()]
    output, final = reference.layer(q.replaced(leaves))
    outputs = [output, *final]
    given = [g.to(dtype) for g in gradients]
    return [*outputs, *torch.autograd.grad(outputs, leaves, given, allow_unused=True, materialize_grads=True)]


def check(q, chosen):
    """A plan is as near to float64 as the reference in the same dtype, except for values that are rounded between
    steps."""
    dtype, (steps, batch, _) = q.outside.dtype, q.outside.shape
    outputs = [q.outside.new_empty(steps, batch, len(q.weights) * q.states[0].shape[-1]), *q.states]
    gradients = [torch.randn_like(o) for o in outputs]
    found = by_plan(q, chosen, gradients), by_reference(q, dtype, gradients), by_reference(q, torch.float64, gradients)
    bound = 4 * torch.finfo(dtype).eps
    for mine, other, truth in zip(*found, strict=True):
        assert mine.shape == truth.shape and mine.dtype == dtype
        assert distance(mine, truth) <= max(bound, 2 * distance(other, truth))


def plans_of(name):
    return ("stepwise", "fused step", "single launch") if REGISTRY[name].recurrent_gates else ("stepwise",)


CASES = [(name, chosen) for name in REGISTRY for chosen in plans_of(name)]


@heavy_if(lambda name, dtype, **_: name in UNLIKE and dtype in (torch.float32, torch.bfloat16))
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("name", "chosen"), CASES)
def test_both_directions_with_all_options(name, chosen, dtype):
    with seqcells.settings(recompute=dtype == torch.bfloat16):
        check(problem(name, dtype), chosen)


@heavy_if(lambda chosen, **_: chosen == "fused step")
@pytest.mark.parametrize("chosen", PLANS)
def test_more_tiles_than_one(chosen):
    """Several tiles of units and of the batch, the last of which is not full."""
    check(problem("lstm", torch.float32, batch=19, hidden=133, steps=2), chosen)


@pytest.mark.parametrize("recompute", (False, True), ids=("saved", "recomputed"))
@pytest.mark.parametrize("ways", ("forwards", "backwards", "both"))
@pytest.mark.parametrize("name", [name for name, cell in REGISTRY.items() if cell.projection])
def test_projected(name, ways, recompute, monkeypatch):
    monkeypatch.setattr(recompute_window, "steps_at_once", lambda q, values: 1)
    q = problem(name, torch.float32, 2 if ways == "both" else 1, hidden=21, proj_size=9)
    with seqcells.settings(recompute=recompute):
        check(q._replace(reverse=ways == "backwards"), "stepwise")


@pytest.mark.parametrize("ways", ("forwards", "backwards", "both"))
@pytest.mark.parametrize("steps_at_once", (1, 2, 9))
def test_recomputed_some_steps_at_once(ways, steps_at_once, monkeypatch):
    q = problem("gru", torch.float32, 2 if ways == "both" else 1, hidden=21, steps=5)
    q = q._replace(reverse=ways == "backwards")
    monkeypatch.setattr(recompute_window, "steps_at_once", lambda q, values: min(q.steps, steps_at_once))
    with seqcells.settings(recompute=True):
        check(q, "stepwise")


@pytest.mark.parametrize("mode", ("ieee", "tf32", "tf32x3"))
@pytest.mark.parametrize("batch", (1, 2, 16, 19))
def test_fused_step_of_any_batch(batch, mode):
    """All its ways to sum, and more than one tile of the batch."""
    if not INTERPRETED and mode == "tf32":
        pytest.skip("rounds more than the reference does")
    for dtype, directions in itertools.product((torch.float32, torch.float16), (1, 2)):
        with seqcells.settings(precision=mode):
            check(problem("gru", dtype, directions, batch, 9, boundaries=False), "fused step")


@heavy_if(lambda name, boundaries, **_: name in ("lstm", "gru") or (name in UNLIKE and boundaries))
@plain_if(lambda name, **_: name in ("lstm", "gru"))
@pytest.mark.parametrize("boundaries", (False, True), ids=("", "boundaries"))
@pytest.mark.parametrize("name", [name for name in REGISTRY if REGISTRY[name].recurrent_gates])
def test_a_single_step_of_any_batch(name, boundaries):
    """With gates_x, and with an input of another size than the hidden size, in all ways to sum."""
    dtypes = (torch.float32, torch.float64) if boundaries else DTYPES
    for dtype, batch in itertools.product(dtypes, (2, 19) if boundaries else (1, 2, 16, 40)):
        check(problem(name, dtype, 2, batch, 9, boundaries=boundaries, steps=1), "single step")
    # Not float64: the reference's float64 is not exact to a digit, and tests/test_triton_prepared.py tests it to 1e-12.
    for dtype, batch in itertools.product(DTYPES[:3], (1, 19)):
        q = problem(name, dtype, 2, batch, 9, boundaries=False, steps=1)
        weights, input = (
            [torch.randn(9 * len(q.cell.gates), 5).to(q.gates_x) for _ in q.weights],
            torch.randn(1, batch, 5),
        )
        bias = [torch.randn(len(w)).to(w) for w in weights]
        own = [w._replace(ih=ih, bias_ih=b) for w, ih, b in zip(q.weights, weights, bias, strict=True)]
        check(q._replace(gates_x=None, input=input.to(q.gates_x), weights=own), "single step")


@pytest.mark.parametrize("chosen", PLANS)
def test_products_are_made_under_the_mode_of_recurrent_layers(chosen, monkeypatch):
    """torch's own switch for products has this mode during the products, forward and backward, and its former value
    afterwards."""
    seen, switch = [], torch.backends.cuda.matmul

    def watched(product):
        def watching(*operands):
            seen.append(switch.fp32_precision)
            return product(*operands)

        return watching

    for module, name in ((stepwise, "multiply"), (gemm, "multiply"), (torch, "tensordot")):
        monkeypatch.setattr(module, name, watched(getattr(module, name)))
    before = switch.fp32_precision
    q = problem("gru", torch.float32, hidden=5, steps=1 if chosen == "single step" else STEPS)
    gradients = [torch.ones_like(q.gates_x[..., :10]), *(torch.ones_like(s) for s in q.states)]
    for mode, expected in (("tf32", {"tf32"}), ("ieee", {"ieee", "none"}), ("tf32x3", {"ieee", "none"})):
        seen.clear()
        monkeypatch.setattr(precision, "mode", lambda dtype, mode=mode: mode)
        by_plan(q, chosen, gradients)
        assert seen and set(seen) <= expected
        assert switch.fp32_precision == before


@pytest.mark.skipif(not INTERPRETED, reason="of the interpreter's one processor; tests/test_dispatch.py has a GPU's")
@pytest.mark.parametrize(
    ("name", "given", "chosen", "against"),
    (
        ("lstm", {"steps": 100, "hidden": 64}, "single launch", ""),
        ("lstm", {"steps": 100, "hidden": 65}, "fused step", "not single launch: one multiprocessor does not hold"),
        ("rnn_tanh", {"steps": 100, "hidden": 128, "dtype": torch.bfloat16, "directions": 2}, "single launch", ""),
        ("gru", {"steps": 1}, "single step", ""),
        ("gru", {"steps": 1, "batch": 129}, "stepwise", "not single step: more than 128 sequences"),
        ("gru", {"batch": configurations.FUSED_ROWS, "steps": 2}, "fused step", "not single launch"),
        ("gru", {"batch": configurations.FUSED_ROWS + 1}, "stepwise", "; not fused step: more than 16"),
        ("gru", {"steps": 100, "batch": 1 << 16, "hidden": 64}, "stepwise", "not single launch: launching each"),
        ("lstm", {"steps": 100, "proj_size": 3}, "stepwise", "not single launch: a projection"),
        ("indrnn", {"steps": 100}, "stepwise", "not single launch: the cell has no recurrent product"),
    ),
)
def test_plans_by_shape(name, given, chosen, against):
    sizes = {"steps": STEPS, "batch": BATCH, "directions": 2, "hidden": HIDDEN, "dtype": torch.float32, **given}
    width = sizes.pop("proj_size", sizes["hidden"])
    found = plan.plan(Shape(REGISTRY[name], torch.device(DEVICE), width=width, **sizes))
    assert found.name == chosen and against in found.reason
