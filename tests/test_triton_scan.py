"""The scan plan: chunks of a sequence run in parallel equal its steps, for cells whose state is linear.

Kernels run in a child process that interprets.
"""

import os
from importlib.util import find_spec

import pytest
import torch
from support import assert_equal_to, plain_if
from test_triton import run_interpreted

from seqcells import cells
from seqcells.call import run
from seqcells.cells import LIBRARY, Cell, units
from seqcells.cells.activations import where
from seqcells.derive.linear_in_state import why_not_linear
from seqcells.request.recurrence import Recurrence
from seqcells.request.weights import Weights

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
here = pytest.mark.skipif(not INTERPRETED, reason="runs in the child process")
LINEAR = {"mingru": cells.MinGRU, "minlstm": cells.MinLSTM, "minlstm_log": cells.MinLSTMLog, "trnn": cells.TRNN}
FORMS = {
    "plain": {},
    "backwards": {"reverse": True},
    "two directions": {"directions": 2},
    "lengths": {"lengths": True, "directions": 2},
    "resets": {"resets": True},
    "resets and lengths": {"resets": True, "lengths": True},
    "resets backwards": {"resets": True, "directions": 2},
}


def test_which_cells_are_linear():
    """Their new state is a·s + b, where a and b depend on the input alone."""
    found = {name for name in ("MinGRU", "JANET", "IndRNN", *LIBRARY) if why_not_linear(getattr(cells, name)) is None}
    assert found == {"MinGRU", "MinGRULog", "MinLSTM", "MinLSTMLog", "TRNN"}
    assert why_not_linear(cells.LSTM) == "the cell has several states"
    steps = {
        "squared": lambda x, r, s, p: s.h * s.h + x.a,
        "divided": lambda x, r, s, p: x.a / (2 + s.h),
        "asked": lambda x, r, s, p: where(s.h > 0, s.h, x.a),
        "averaged": lambda x, r, s, p: x.a + units.mean(s.h),
        "kept": lambda x, r, s, p: where(x.a > 0, -s.h / 2, x.a * (s.h + 1)),
    }
    for name, step in steps.items():
        own = {"name": name, "gates": ("a",), "recurrent_gates": (), "states": ("h",), "step": staticmethod(step)}
        assert (why_not_linear(type(name, (Cell,), own)) is None) == (name == "kept")
    assert why_not_linear(cells.GRU) == why_not_linear(cells.BRC) == "its new state is not linear in the old one"


@pytest.mark.skipif(INTERPRETED, reason="this is the child process")
def test_in_a_process_that_interprets():
    run_interpreted("test_triton_scan.py -m 'not heavy'")


@pytest.mark.heavy
@pytest.mark.skipif(INTERPRETED, reason="this is the child process")
def test_the_rest_in_a_process_that_interprets():
    run_interpreted("test_triton_scan.py -m heavy")


@pytest.fixture
def scanned(monkeypatch, compiling, own_registry):
    """Force three chunks, at any cost; a list records how often they run."""
    from seqcells.kernels.triton.plans import scan

    seen, carried = [], scan.Chunks.carried

    def noted(self, *arguments, **options):
        seen.append(self.count)
        return carried(self, *arguments, **options)

    monkeypatch.setattr(scan, "chunks", lambda shape: 3)
    monkeypatch.setattr(scan, "why_not_faster", lambda shape: None)
    monkeypatch.setattr(scan.Chunks, "carried", noted)
    return seen


def layer(
    name, dtype=torch.float64, steps=7, batch=3, directions=1, lengths=False, resets=False, reverse=False, features=0
):
    """A recurrence of random tensors that require gradients. With features, it has an input."""
    generator, cell, hidden = torch.Generator().manual_seed(steps), LINEAR[name], 5

    def randn(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()

    roles = Weights.roles(cell, True, False)
    shapes = [Weights.shape(role, cell, features or 1, hidden, 0) for role in roles]
    weights = [Weights.of(roles, [randn(*shape) for shape in shapes]) for _ in range(directions)]
    weights = weights if features else [w.recurrent for w in weights]
    outside = randn(steps, batch, features or directions * len(cell.gates) * hidden)
    states = [randn(directions, batch, hidden)]
    q = Recurrence(cell, None if features else outside, states, weights, reverse=reverse)
    q = q._replace(input=outside if features else None)
    if lengths:
        q = q._replace(lengths=torch.tensor([steps - 1, 0, 2][:batch]))
    if resets:
        reset = torch.rand(steps, batch, generator=generator) < 0.3
        reset[3, 0] = reset[-1, -1] = True
        q = q._replace(reset=reset, reset_states=[randn(directions, batch, hidden)])
    return q


def results(q, backend, wanted=None):
    """Output, final states and all gradients."""
    output, final = run.recurrence(q, backend)
    outputs, leaves = [output, *final], q.differentiable() if wanted is None else wanted
    generator = torch.Generator().manual_seed(1)
    seeds = [torch.randn(o.shape, generator=generator, dtype=torch.float64).to(o.dtype) for o in outputs]
    found = torch.autograd.grad(outputs, leaves, seeds, allow_unused=True, materialize_grads=True)
    return [each.detach() for each in (*outputs, *found)]


@here
@plain_if(lambda name, form: (name == "mingru" and form == "lengths") or (name == "minlstm" and form == "resets"))
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", LINEAR)
def test_chunks_as_the_reference(name, form, scanned):
    """Results and every gradient, also where the last chunk is shorter."""
    q = layer(name, **FORMS[form])
    assert_equal_to(results(q, "triton"), results(q, "reference"), 1e-11)
    assert scanned == ([] if form == "resets backwards" else [3, 3])


@here
def test_one_sequence_with_resets(scanned):
    """A scan's typical use; initial states of the chunks are laid out as they are read."""
    q = layer("mingru", batch=1, resets=True, lengths=True)
    assert_equal_to(results(q, "triton"), results(q, "reference"), 1e-11)


@here
def test_nothing_crosses_a_reset(scanned):
    """Nor does NaN cross it, nor a gradient."""
    q = layer("mingru", steps=9, resets=True)
    reset = torch.zeros(9, 3, dtype=torch.bool)
    reset[4] = True
    q = q._replace(reset=reset)
    with torch.no_grad():
        q.gates_x[1, 0], q.states[0][:, 1] = torch.nan, torch.inf
    output, _ = run.recurrence(q, "triton")
    assert output[4:].isfinite().all() and not output[:4, :2].isfinite().all()
    assert_equal_to([output[4:]], [run.recurrence(q, "reference")[0][4:]], 1e-11)
    (found,) = torch.autograd.grad(output[4:].sum(), q.gates_x)
    assert not found[:4].nan_to_num().any() and found[4:].isfinite().all()


@here
@pytest.mark.heavy
@pytest.mark.parametrize("dtype", (torch.bfloat16, torch.float16), ids=str)
@pytest.mark.parametrize("form", FORMS)
def test_narrow_numbers_in_every_form(form, dtype, scanned):
    q = layer("mingru", dtype, **FORMS[form])
    found, judged = results(q, "triton"), results(q, "reference")
    for mine, other in zip(found, judged, strict=True):
        assert mine.dtype == dtype and torch.allclose(mine.float(), other.float(), rtol=0.1, atol=0.1)


@here
def test_from_an_input_and_without_gradients(scanned):
    q = layer("mingru", features=4, directions=2)
    assert_equal_to(results(q, "triton"), results(q, "reference"), 1e-11)
    with torch.no_grad():
        (output, (final,)), (expected, (last,)) = (run.recurrence(q, each) for each in ("triton", "reference"))
    assert_equal_to([output, final], [expected, last], 1e-11)
    assert scanned == [3, 3, 3]


@here
def test_some_gradients_alone(scanned):
    q = layer("mingru", features=4)
    for wanted in ([q.input], [q.states[0]], [q.weights[0].ih]):
        assert_equal_to(results(q, "triton", wanted), results(q, "reference", wanted), 1e-11)


@here
@pytest.mark.heavy
@pytest.mark.parametrize("steps", [1, 2, 3, 5, 9])
def test_any_number_of_steps(steps, scanned):
    q = layer("mingru", steps=steps)
    assert_equal_to(results(q, "triton"), results(q, "reference"), 1e-11)


@here
@pytest.mark.heavy
@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16), ids=str)
def test_as_near_to_float64_as_the_reference(dtype, scanned):
    q = layer("mingru", dtype, steps=24)
    exact = q.replaced([t.detach().double().requires_grad_() for t in q.differentiable()])
    found, judged, truth = results(q, "triton"), results(q, "reference"), results(exact, "reference")
    for mine, other, true in zip(found, judged, truth, strict=True):
        assert mine.dtype == dtype
        assert (mine - true).norm() <= max(2 * torch.finfo(dtype).eps * true.norm(), 2 * (other - true).norm())


@here
@pytest.mark.heavy
def test_large_states_lose_nothing(scanned):
    """A is not computed as a difference of chunk ends, which would lose what a large end rounds off."""
    q = layer("mingru", torch.float32, steps=24)
    with torch.no_grad():
        q.gates_x[..., 5:] *= 1e6
    exact = q.replaced([t.detach().double() for t in q.differentiable()])
    with torch.no_grad():
        found, true = run.recurrence(q, "triton")[0], run.recurrence(exact, "reference")[0]
    assert (found - true).abs().max() <= 1e-6 * true.abs().max()


@here
def test_it_is_chosen_by_what_steps_cost(monkeypatch, compiling):
    """A single long sequence is scanned. A short one, many sequences, or a cell that is not linear are not."""
    from seqcells.kernels.triton.plans import plan
    from seqcells.kernels.triton.plans.shape import Shape

    monkeypatch.setattr("seqcells.kernels.triton.host.configurations.processors", lambda device: (132, 227 << 10))

    def chosen(cell, steps, batch):
        sizes = steps, batch, 1, 256, 256
        return plan.plan(Shape(cell, torch.device("cpu"), torch.float32, *sizes))

    assert chosen(cells.MinGRU, 4096, 1).name == chosen(cells.MinLSTM, 512, 4).name == "scan"
    assert chosen(cells.MinGRU, 64, 1).reason.startswith("not scan: its steps one by one take less time")
    assert chosen(cells.MinGRU, 4096, 1024).reason.startswith("not scan: the sequences fill the GPU, or are short")
    assert "not linear" in chosen(cells.IndRNN, 4096, 1).reason
    assert "scan" not in chosen(cells.GRU, 4096, 1).reason


@pytest.mark.skipif(INTERPRETED, reason="kernels are compiled")
@pytest.mark.parametrize("architecture", [80, 90, 100])
def test_the_kernel_compiles_without_a_gpu(architecture):
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from seqcells.kernels.triton.device.scan_carry import carry

    numbers = dict.fromkeys(("gain", "end", "first", "starts", "last"), "*fp32")
    signature = numbers | {"cut": "*i1"} | dict.fromkeys(("count", "size", "backwards"), "i32")
    signature |= {"directions": "constexpr", "BLOCK": "constexpr"}
    constants = {(carry.arg_names.index("directions"),): 2, (carry.arg_names.index("BLOCK"),): 256}
    source = ASTSource(carry, {name: signature[name] for name in carry.arg_names}, constants)
    assert "st.global" in triton.compile(source, target=GPUTarget("cuda", architecture, 32)).asm["ptx"]
