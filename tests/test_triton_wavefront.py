"""Several layers at once in the persistent plan, each a step behind the layer below, in a child process."""

import itertools
import os
from importlib.util import find_spec
from types import SimpleNamespace

import pytest
import torch
from support import UNLIKE, as_tuple, assert_equal_to, distance, gradients, heavy_if
from test_triton import run_interpreted
from test_triton_persistent import boundaries, check, results
from torch.utils.flop_counter import FlopCounterMode

import seqcells
from seqcells.call import run
from seqcells.cells import REGISTRY
from seqcells.request.recurrence import Recurrence
from seqcells.request.weights import Weights

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
here = pytest.mark.skipif(not INTERPRETED, reason="runs in the child process")

if INTERPRETED:
    import concurrent_programs

T, B, H = 3, 3, 19  # two blocks of 16 units, the last one with 3


@pytest.mark.skipif(INTERPRETED, reason="this is the child process")
def test_in_a_process_that_interprets():
    run_interpreted("test_triton_wavefront.py -m 'not heavy'")


@pytest.mark.heavy
@pytest.mark.skipif(INTERPRETED, reason="this is the child process")
def test_the_rest_in_a_process_that_interprets():
    run_interpreted("test_triton_wavefront.py -m 'heavy and not exhaustive'")


@pytest.fixture
def divided(monkeypatch):
    """Programs of 16 units and rows; rows beyond ``groups`` programs take another launch."""
    from seqcells.kernels.triton.host import configurations

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


BOTH = {"plain": {}, "boundaries": boundaries(B, T)}


@here
@heavy_if(lambda name, **_: name in UNLIKE)
@pytest.mark.parametrize(
    ("name", "given"),
    [
        pytest.param(*case, marks=[] if case in (("lstm", "boundaries"), ("gru", "plain")) else pytest.mark.heavy)
        for case in itertools.product([name for name, cell in REGISTRY.items() if cell.recurrent_gates], BOTH)
    ],
)
def test_layers_together_equal_the_reference(name, given, divided):
    """Two layers, in programs that wait for the other units of their layer and for the other layer."""
    check(stack(name, **BOTH[given]), [4, 4])


@here
@pytest.mark.heavy
@pytest.mark.parametrize("name", ["rnn_tanh", "lstm", "gru"])
def test_three_layers(name, divided):
    check(stack(name, 3, **boundaries(B, T)), [6, 6])


@here
@pytest.mark.heavy
def test_the_lowest_may_be_given_its_input(divided):
    """The lowest layer gets its input as layers give it: not projected, and here not contiguous."""
    input = torch.randn(B, T, H, generator=torch.Generator().manual_seed(5), dtype=torch.float64).transpose(0, 1)
    check(stack("gru")._replace(gates_x=None, input=input.requires_grad_()), [4, 4])


@here
@pytest.mark.heavy
def test_one_step(divided):
    check(stack("rnn_tanh", steps=1), [4, 4])


@here
@pytest.mark.heavy
def test_one_program_for_each_layer(divided):
    """A program that has all units waits only for the other layer."""
    check(stack("gru", hidden=5), [2, 2])


@here
@pytest.mark.heavy
@pytest.mark.parametrize(("groups", "programs"), [(1, [4, 4, 4, 4]), (2, [8, 8])])
def test_more_sequences_than_a_program_has_rows(groups, programs, divided):
    divided(groups)
    check(stack("rnn_tanh", batch=18, steps=2), programs)


@here
@pytest.mark.heavy
def test_without_bias(divided):
    check(stack("rnn_tanh", bias=False, steps=2), [4, 4])


@here
@pytest.mark.parametrize("name", ["rnn_tanh", "gru"])
@pytest.mark.heavy
def test_weights_in_shared_memory(name, divided):
    """An interpreter cannot see where weights are; this tests that the other loop takes the same steps."""
    divided(shared=True)
    check(stack(name, **boundaries(B, T)), [4, 4])


def layer_by_layer(q, backend):
    """The same results, with torch's product between two layers."""
    output, finals = q.gates_x, []
    for k, w in enumerate(q.weights):
        gates_x = torch.nn.functional.linear(output, w.ih, w.bias_ih) if k else output
        one = q._replace(gates_x=gates_x, states=[s[k : k + 1] for s in q.states], weights=[w], stacked=False)
        output, final = run.recurrence(one, backend)
        finals.append(final)
    results = [output, *(torch.cat(state) for state in zip(*finals, strict=True))]
    return [*results, *gradients(results, q.differentiable())]


@here
@pytest.mark.heavy
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_narrow_storage_is_as_near_as_layer_by_layer(dtype, divided):
    """It rounds less between layers: the input's part of the gates is never stored."""
    q, truth = stack("gru", dtype=dtype), results(stack("gru"), "reference")
    with concurrent_programs.concurrent():
        found = results(q, "triton-persistent")
    for got, expected, other in zip(found, truth, layer_by_layer(q, "triton-stepwise"), strict=True):
        assert got.dtype == dtype
        assert distance(got, expected) <= 1.5 * distance(other, expected) + torch.finfo(dtype).eps


@here
@pytest.mark.heavy
def test_float32_in_three_products_of_tensor_cores(divided, monkeypatch):
    """The interpreter's products are always exact float32; this test shows that the parts of the operands add up."""
    q = stack("rnn_tanh", dtype=torch.float32, steps=2)
    with concurrent_programs.concurrent():
        whole = results(q, "triton-persistent")
        monkeypatch.setattr(torch.version, "hip", None)
        with seqcells.settings(precision="tf32x3"):
            assert_equal_to(results(q, "triton-persistent"), whole, 1e-5)


@here
@pytest.mark.heavy
def test_the_same_bits_every_time(divided):
    q = stack("rnn_tanh", dtype=torch.float32)
    with concurrent_programs.concurrent():
        assert all(map(torch.equal, results(q, "triton-persistent"), results(q, "triton-persistent")))


@here
def test_a_layer_that_does_not_wait_for_the_one_below_is_found_out(divided, monkeypatch):
    """The test of these tests: the programs of a layer wait for each other, but not for the layer below."""
    from seqcells.kernels.triton.device import barrier, wavefront

    passing = SimpleNamespace(arrive=barrier.arrive, wait=lambda counter, target, patience: patience)
    monkeypatch.setattr(wavefront, "barrier", passing)
    with pytest.raises(AssertionError):
        check(stack("lstm"), [4, 4])


@here
def test_a_layer_that_never_comes_gives_an_error(divided, monkeypatch, capfd):
    from seqcells.kernels.triton.host import configurations

    monkeypatch.setattr(configurations, "PATIENCE", 20)
    all_but_the_lowest = concurrent_programs.concurrent(absent=lambda program: program[2] == 0)
    with torch.no_grad(), all_but_the_lowest, pytest.raises(AssertionError, match="programs failed"):
        run.recurrence(stack("rnn_tanh"), "triton-persistent")
    assert "never reached the grid barrier" in capfd.readouterr().err


# Users of stacks that do not know of this plan.


def both(run, programs):
    """The results of ``run`` by the persistent plan, in launches of so many programs, equal the reference's."""
    with concurrent_programs.concurrent() as launched:
        found = run("triton-persistent")
    assert launched == programs
    assert_equal_to(found, run("reference"))


def module_results(module, input, **given):
    """Output, final states and all gradients of a layer as a function of the backend, with the same random numbers."""

    def run(backend):
        module.backend = backend
        torch.manual_seed(0)
        output, final = module(input, **given)
        found = [output, *as_tuple(final)]
        return [*found, *gradients(found, [input, *module.parameters()])] if torch.is_grad_enabled() else found

    return run


@here
def test_a_layer_of_three(divided):
    module = seqcells.LSTM(5, H, num_layers=3, batch_first=True, dropout=0.5, dtype=torch.float64).eval()
    input = torch.randn(B, T, 5, dtype=torch.float64, requires_grad=True)
    module.backend = "triton-persistent"
    assert "3 layers at once" in module.plan(input).reason
    both(module_results(module, input, lengths=torch.tensor([3, 0, 2])), [6, 6])


@here
def test_a_layer_of_three_in_inference(divided):
    module = seqcells.RNN(5, H, num_layers=3, dtype=torch.float64)
    with torch.no_grad():
        both(module_results(module, torch.randn(2, B, 5, dtype=torch.float64)), [6])


@here
def test_no_more_layers_at_once_than_fit(divided, monkeypatch):
    from seqcells.kernels.triton.host import configurations

    fitting = configurations.persistent

    def no_more_than_two(*given):
        return "they do not fit" if given[10:] and given[10] > 2 else fitting(*given)

    monkeypatch.setattr(configurations, "persistent", no_more_than_two)
    module = seqcells.RNN(5, H, num_layers=3, dtype=torch.float64, backend="triton-persistent")
    input = torch.randn(2, B, 5, dtype=torch.float64, requires_grad=True)
    assert "2 layers at once" in module.plan(input).reason
    both(module_results(module, input), [4, 2, 2, 4])


@here
@pytest.mark.parametrize(("options", "programs"), [({"dropout": 0.5}, [2] * 4), ({"bidirectional": True}, [4] * 4)])
def test_layer_by_layer_where_something_comes_between(options, programs, divided):
    module = seqcells.RNN(5, H, num_layers=2, dtype=torch.float64, **options)
    input = torch.randn(2, B, 5, dtype=torch.float64, requires_grad=True)
    both(module_results(module, input), programs)


@here
def test_gradients_of_gradients_and_of_samples(divided):
    """By the reference, as everywhere."""
    module = seqcells.RNN(5, H, num_layers=2, dtype=torch.float64)
    input = torch.randn(2, B, 5, dtype=torch.float64, requires_grad=True)

    def twice(backend):
        module.backend = backend
        output, _ = module(input)
        first = torch.autograd.grad(output.square().sum(), [input, *module.parameters()], create_graph=True)
        return [*first, *gradients(first, [input, *module.parameters()])]

    def batched(backend):
        module.backend = backend
        output, _ = module(input)
        each = torch.eye(2).repeat_interleave(output.numel() // 2, 1).view(2, *output.shape).double()
        return torch.autograd.grad(output, [input, *module.parameters()], each, is_grads_batched=True)

    both(twice, [4, 4])  # a second differentiation runs the stack again
    both(batched, [4])


@here
@pytest.mark.heavy
def test_who_watches_backward_sees_the_references(divided):
    module = seqcells.RNN(5, H, num_layers=2, dtype=torch.float64)
    input = torch.randn(2, B, 5, dtype=torch.float64, requires_grad=True)

    def run(backend):
        module.backend = backend
        output, _ = module(input)
        with FlopCounterMode(display=False):
            return [output, *gradients([output], [input, *module.parameters()])]

    both(run, [4])


@here
@pytest.mark.heavy
def test_compiled_it_is_an_operator_for_each_layer(divided):
    module = seqcells.RNN(5, H, num_layers=2, dtype=torch.float64)
    input = torch.randn(2, B, 5, dtype=torch.float64, requires_grad=True)
    compiled = torch.compile(lambda x: module(x)[0], fullgraph=True, backend="aot_eager")

    def run(backend):
        module.backend = backend
        output = compiled(input)
        return [output, *gradients([output], [input, *module.parameters()])]

    both(run, [2] * 4)
