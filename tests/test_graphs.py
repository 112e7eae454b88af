"""Graphs with the operators: compiled, exported and traced layers have every gradient; no transform is silently
wrong."""

import pytest
import torch
from support import ENGINES, as_tuple, assert_equal_to, gradients, layer
from test_operators import B, F, H, T, problem, without_gradients
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.func import grad, jacrev, jvp, vmap
from torch.fx.experimental.proxy_tensor import make_fx

import seqcells
from seqcells.call import execute, operators
from seqcells.cells import REGISTRY, Cell
from seqcells.cells.activations import tanh
from seqcells.derive.print_loop import cpp_cells


def functions():
    module = layer("gru", F, H, dtype=torch.float64)
    return module, lambda input: module(input)[0]


@pytest.fixture
def traced():
    """Graphs that hold the operators: a compiled, an exported and a traced layer."""
    torch._dynamo.reset()
    module, run = functions()
    input = torch.randn(T, B, F, dtype=torch.float64)
    with torch.no_grad():
        exported = torch.export.export(module, (input,)).module()
    jitted = torch.jit.trace(module, (input,))
    compiled = torch.compile(module, backend="aot_eager")
    return run, input, {"exported": exported, "traced": jitted, "compiled": compiled}


def test_graphs_made_without_gradients_have_them(traced):
    run, input, graphs = traced
    input.requires_grad_()
    expected = gradients([run(input)], [input])
    for graph in graphs.values():
        assert_equal_to(gradients([graph(input)[0]], [input]), expected)


def test_graphs_save_nothing_without_gradients(traced):
    _, input, graphs = traced
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen, torch.no_grad():
        graphs["exported"](input), graphs["traced"](input)
    names = {event.key for event in seen.key_averages()}
    assert "seqcells::recurrence" in names and "seqcells::recurrence_forward" not in names


def test_forward_mode_through_graphs(traced):
    run, input, graphs = traced
    tangent, step = torch.randn_like(input), 1e-6
    expected = (run(input + step * tangent) - run(input - step * tangent)) / (2 * step)
    for name in ("exported", "traced"):
        with forward_ad.dual_level():
            output = graphs[name](forward_ad.make_dual(input, tangent))[0]
            assert_equal_to([forward_ad.unpack_dual(output).tangent], [expected], 1e-7)
        assert_equal_to([jvp(lambda i, name=name: graphs[name](i)[0], (input,), (tangent,))[1]], [expected], 1e-7)


@pytest.mark.parametrize("transform", ("grad", "vmap", "vmap of grad", "jacrev", "jvp", "ensemble"))
def test_transforms_inside_what_is_compiled(transform):
    """Compared with the same transform of the reference, which consists of torch's own operators, in eager mode."""
    torch._dynamo.reset()
    module, run = functions()
    modules = [module, layer("gru", F, H, dtype=torch.float64)]
    stacked, _ = torch.func.stack_module_state(modules)
    one, many = torch.randn(T, B, F, dtype=torch.float64), torch.randn(4, T, B, F, dtype=torch.float64)

    def loss(input):
        return run(input).sin().sum()

    def ensemble(input):
        return vmap(lambda p: torch.func.functional_call(module, p, (input,))[0])(stacked)

    function, argument = {
        "grad": (grad(loss), one),
        "vmap": (vmap(run), many),
        "vmap of grad": (vmap(grad(loss)), many),
        "jacrev": (jacrev(run), one),
        "jvp": (lambda input: jvp(run, (input,), (input.cos(),))[1], one),
        "ensemble": (ensemble, one),
    }[transform]
    found = torch.compile(function, backend="aot_eager")(argument)
    module.backend = "reference"
    assert_equal_to([found], [function(argument)])


def test_vmap_of_what_holds_operators(traced):
    run, input, graphs = traced
    many = torch.stack([input, input + 1])
    expected = torch.stack([run(each) for each in many])
    assert_equal_to([vmap(lambda i: graphs["exported"](i)[0])(many)], [expected])


@pytest.mark.parametrize("backend", [b for b in ENGINES if b == "cpu"])
def test_a_graph_holds_no_machines_backend(backend):
    module, input = layer("gru", F, H), torch.randn(T, B, F)
    program = torch.export.export(module, (input,))
    node = next(n for n in program.graph.nodes if "seqcells" in str(n.target))
    assert node.args[-1] == "auto"
    module.backend = backend
    program = torch.export.export(module, (input,))
    node = next(n for n in program.graph.nodes if "seqcells" in str(n.target))
    assert node.args[-1] == backend
    # A named backend runs or raises, on whatever device its tensors are at run time.
    with FakeTensorMode(allow_non_fake_inputs=True):
        tensors = [torch.empty(t.shape, dtype=t.dtype, device="cuda") for t in problem("gru").differentiable()]
        q = problem("gru").replaced(tensors)
        with pytest.raises(RuntimeError, match="backend='cpu' cannot run this call: its kernels run on a CPU"):
            torch.ops.seqcells.recurrence(*operators.arguments(q, "cpu"))


class Commented(Cell):
    name, gates, states, parameters = "commented", ("h",), ("h",), {"leak": ("a",)}

    # fmt: off
    def step(x, r, s, p):  # noqa: N805 - a comment: with a colon
        return s.h + p.a * (tanh(x.h + r.h) - s.h)
    # fmt: on


class InOneLine(Cell):
    name, gates, states, parameters = "in_one_line", ("h",), ("h",), {"leak": ("a",)}

    # fmt: off
    def step(x, r, s, p): return s.h + p.a * (tanh(x.h + r.h) - s.h)  # noqa: N805
    # fmt: on


class Lambda(Cell):
    name, gates, states, parameters = "lambda", ("h",), ("h",), {"leak": ("a",)}
    step = lambda x, r, s, p: s.h + (tanh(x.h + r.h) - s.h) * p.a  # noqa: E731


@pytest.fixture
def defined():
    """`seqcells.define`; its cells are removed afterwards, because other tests go through the registry."""
    before = dict(REGISTRY)
    yield seqcells.define
    REGISTRY.clear()
    REGISTRY.update(before)


@pytest.mark.parametrize("cell", (Commented, InOneLine, Lambda))
def test_a_cell_of_ones_own_is_compiled_and_exported(cell, defined):
    kind, _ = defined(cell)
    module, input = kind(F, H), torch.randn(T, B, F)
    torch._dynamo.reset()
    expected = module(input)[0]
    assert_equal_to([torch.compile(module, backend="aot_eager", fullgraph=True)(input)[0]], [expected], 1e-6)
    assert_equal_to([torch.export.export(module, (input,)).module()(input)[0]], [expected], 1e-6)
    assert "tanh" in cpp_cells([cell])


def test_a_program_is_its_equations_however_they_are_written():
    assert len({operators.program(cell) for cell in (Commented, InOneLine)}) == 1
    own = [cell for cell in REGISTRY.values() if cell.__module__.startswith("seqcells.")]
    assert len({operators.program(cell) for cell in own}) == len(own)


def test_a_parameter_cannot_have_a_weights_name():
    with pytest.raises(TypeError, match="cannot have a parameter hh"):
        type(
            "Bad", (Cell,), {"name": "bad", "gates": ("h",), "states": ("h",), "parameters": {"hh": ("a",)}, "step": 1}
        )


@pytest.mark.parametrize("transform", (grad, jacrev), ids=("grad", "jacrev"))
def test_gradients_of_torch_func_through_graphs(transform, traced):
    run, input, graphs = traced
    expected = transform(lambda i: run(i).sin().sum())(input)
    for name in ("exported", "traced"):
        found = transform(lambda i, name=name: graphs[name](i)[0].sin().sum())(input)
        assert_equal_to([found], [expected])
    whole = torch.compile(transform(lambda i: run(i).sin().sum()), backend="aot_eager", fullgraph=True)
    assert_equal_to([whole(input)], [expected])


def test_forward_mode_over_the_backward_of_graphs(traced):
    """The gradient is linear in its seed, so its tangent along v is the gradient of v."""
    _, input, graphs = traced
    leaf = input.clone().requires_grad_()
    for name in ("exported", "traced"):
        output = graphs[name](leaf)[0]
        v = torch.randn_like(output)
        expected = torch.autograd.grad(output, leaf, v, retain_graph=True)
        tangent = jvp(lambda s, o=output: torch.autograd.grad(o, leaf, s, retain_graph=True)[0], (v,), (v,))[1]
        assert_equal_to([tangent], expected)
        with forward_ad.dual_level():
            found = torch.autograd.grad(output, leaf, forward_ad.make_dual(v, v), retain_graph=True)[0]
            assert_equal_to([forward_ad.unpack_dual(found).tangent], expected)
        both = torch.stack([v, 2 * v])
        many = torch.autograd.grad(output, leaf, both, is_grads_batched=True, retain_graph=True)[0]
        assert_equal_to([many[0], many[1]], [expected[0], 2 * expected[0]])


def test_operators_called_by_themselves_have_gradients_or_say_why_not():
    q = problem("gru")
    args = operators.arguments(q, "cpu")
    forward, alone = torch.ops.seqcells.recurrence_forward, torch.ops.seqcells.recurrence
    tensors = tuple(args[2])
    with pytest.raises(RuntimeError, match="which transforms do not follow"):
        jvp(lambda *tensors: forward(*args[:2], [*tensors], *args[3:])[0], tensors, tensors)
    assert_equal_to(*(gradients([operator(*args)[0]], q.differentiable()) for operator in (forward, alone)))
    plain = operators.arguments(without_gradients(q), "cpu")
    output, *rest = torch.ops.seqcells.recurrence_forward(*plain)
    given = [output, *rest[1:]], [output, rest[0]]
    twice = torch.ops.seqcells.recurrence_backward(*args, *given)
    seeds = execute.by_reference(q, *q.differentiable())
    first = torch.autograd.grad(seeds, q.differentiable(), given[1], create_graph=True)
    assert_equal_to(twice, first)
    total = [sum(g.sin().sum() for g in each) for each in (twice, first)]
    assert_equal_to(*(gradients([t], q.differentiable()) for t in total))


TRACERS = {
    "jit": torch.jit.trace,
    "fx": lambda run, given: make_fx(run)(*given),
    "fx before autograd": lambda run, given: make_fx(run, pre_dispatch=True)(*given),
}


@pytest.mark.parametrize("tracer", TRACERS)
def test_what_was_traced_with_lengths_takes_others(tracer):
    """Tracing must not read the values of lengths, or the graph would be valid only for these values."""
    module = layer("gru", F, H, dtype=torch.float64).requires_grad_(False)
    input = torch.randn(T, B, F, dtype=torch.float64)

    def run(input, lengths):
        return module(input, lengths=lengths)[0]

    graph = TRACERS[tracer](run, (input, torch.tensor([2, 0, T])))
    others = torch.tensor([T, 3, 1])
    assert_equal_to([graph(input, others)], [run(input, others)])


@pytest.mark.heavy
@pytest.mark.parametrize("name", ("gru", "lstm"))
def test_compiled_ahead_of_time_equals_eager(name, tmp_path):
    """By AOTInductor, which makes one file of an exported program, to be run without Python."""
    from torch._inductor import cpp_builder, exc

    try:
        cpp_builder.get_cpp_compiler()
    except exc.InvalidCxxCompiler as lacking:
        pytest.skip(f"AOTInductor needs a C++ compiler, and there is none here: {lacking}")
    module = layer(name, F, H, 2, bidirectional=True)
    given = {"input": torch.randn(T, B, F), "lengths": torch.tensor([2, 0, T]), "reset": torch.rand(T, B) < 0.3}
    with torch.no_grad():
        program = torch.export.export(module, (), given)
        path = torch._inductor.aoti_compile_and_package(program, package_path=str(tmp_path / "layer.pt2"))
        loaded = torch._inductor.aoti_load_package(path)
        # Other values than those of the export.
        given |= {"input": torch.randn(T, B, F), "lengths": torch.tensor([T, 3, 1]), "reset": torch.rand(T, B) < 0.3}
        (output, final), (expected, expected_final) = loaded(**given), module(**given)
    assert_equal_to([output, *as_tuple(final)], [expected, *as_tuple(expected_final)], 1e-6)
