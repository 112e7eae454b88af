"""torch.func and similar: vmap, jvp, per-sample gradients; eval; the same bits in every run."""

import pytest
import torch
from support import (
    ENGINES,
    TORCH_LAYERS,
    assert_equal_to,
    cases,
    cell,
    gradients,
    layer,
    random_states,
    results,
)
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.func import functional_call, grad, jacrev, jvp, vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.utils._per_sample_grad import call_for_per_sample_grads
from torch.utils._python_dispatch import TorchDispatchMode

from seqcells.cells import REGISTRY

T, B, F, H = 5, 3, 4, 6
LIKE = {"dtype": torch.float64}


def loss_of(module):
    def loss(parameters, row):
        return functional_call(module, parameters, (row,))[0].sin().sum()

    return loss


@pytest.mark.parametrize("name", REGISTRY)
def test_per_sample_gradients(name):
    module = layer(name, F, H, bidirectional=True, **LIKE)
    rows = torch.randn(B, T, F, **LIKE)
    parameters = dict(module.named_parameters())
    together = vmap(grad(loss_of(module)), in_dims=(None, 0))({k: p.detach() for k, p in parameters.items()}, rows)
    for b in range(B):
        alone = torch.autograd.grad(loss_of(module)(parameters, rows[b]), list(parameters.values()))
        assert_equal_to([g[b] for g in together.values()], alone)


@pytest.mark.parametrize("options", ({}, {"num_layers": 2, "bidirectional": True, "batch_first": True}), ids=str)
@pytest.mark.parametrize("name", TORCH_LAYERS)
def test_gradients_of_samples_by_expanded_weights(name, options):
    module = layer(name, F, H, **options, **LIKE)
    theirs = TORCH_LAYERS[name](F, H, **options, **LIKE)
    theirs.load_state_dict(module.state_dict())
    axis = 0 if module.batch_first else 1
    input = torch.randn(*((B, T) if module.batch_first else (T, B)), F, **LIKE)
    call_for_per_sample_grads(module, batch_size=B, batch_first=module.batch_first)(input)[0].sin().sum().backward()
    for b in range(B):
        alone = theirs(input.select(axis, b))[0].sin().sum()
        expected = torch.autograd.grad(alone, [*theirs.parameters()])
        assert_equal_to([parameter.grad_sample[b] for parameter in module.parameters()], expected)


def test_what_has_no_expanded_weights_says_what_has_gradients_of_samples():
    input = torch.randn(B, T, F)
    for module, given, words in (
        (layer("gru", F, H, batch_first=True), {"lengths": torch.tensor([1, 2, 3])}, "no lengths="),
        (layer("gru", F, H, batch_first=True, backend="reference"), {}, "none for backend='reference'"),
        (layer("peephole_lstm", F, H, batch_first=True), {}, "no operator for the peephole_lstm cell"),
        (cell("gru", F, H), {}, "none for cells"),
    ):
        run = call_for_per_sample_grads(module, batch_size=B)
        with pytest.raises(RuntimeError, match=rf"expanded weights.*{words}.*torch\.func\.vmap"):
            run(input if hasattr(module, "num_layers") else input[:, 0], **given)


@pytest.mark.parametrize("name", REGISTRY)
def test_ensembles_of_layers(name):
    modules = [layer(name, F, H, **LIKE) for _ in range(3)]
    stacked, _ = torch.func.stack_module_state(modules)
    input = torch.randn(T, B, F, **LIKE)
    together = vmap(lambda p: functional_call(modules[0], p, (input,))[0])(stacked)
    assert_equal_to(together, [m(input)[0] for m in modules])


@pytest.mark.parametrize("name", REGISTRY)
def test_forward_mode_agrees_with_reverse_mode(name):
    module = layer(name, F, H, **LIKE)
    input, tangent = torch.randn(T, B, F, **LIKE), torch.randn(T, B, F, **LIKE)
    _, along = jvp(lambda i: module(i)[0], (input,), (tangent,))
    jacobian = jacrev(lambda i: module(i)[0])(input)
    assert_equal_to([along], [torch.tensordot(jacobian, tangent, 3)])
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(input, tangent)
        assert_equal_to([torch.autograd.forward_ad.unpack_dual(module(dual)[0]).tangent], [along])


@pytest.mark.parametrize(("name", "backend"), [*cases(), *((name, "auto") for name in REGISTRY)])
def test_backward_works_in_eval_mode(name, backend, device):
    module = layer(name, F, H, 2, dropout=0.5, backend=backend, device=device)
    module.reset_parameters()
    input = torch.randn(T, B, F, device=device, requires_grad=True)
    found = []
    for training in (False, True):
        module.train(training).dropout = 0.5 * (not training)
        found.append(gradients([module(input)[0]], [input, *module.parameters()]))
    assert_equal_to(found[0], found[1], 1e-6)


class _Watching(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.seen.append(str(function))
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("backend", ENGINES)
def test_whoever_watches_sees_operators(backend, device):
    """Forward and backward, also if the forward ran before the mode was entered."""
    module = layer("gru", F, H, backend=backend, device=device)
    input = torch.randn(T, B, F, device=device)
    with _Watching() as whole:
        module(input)[0].sum().backward()
    output = module(input)[0].sum()
    with _Watching() as half:
        output.backward()
    assert {"seqcells.recurrence_forward.default", "aten.addmm.default"} <= {*whole.seen}
    for found in (whole.seen, half.seen):
        assert {"seqcells.recurrence_backward.default", "aten.mm.default"} <= {*found}


@pytest.mark.parametrize("settings", ({}, {"bidirectional": True, "bias": False}), ids=str)
@pytest.mark.parametrize("wanted", (False, True), ids=("weights", "input"))
@pytest.mark.parametrize(("name", "backend"), [(n, b) for n, b in cases(dtype=torch.float64) if b in ENGINES])
def test_a_backward_that_is_watched_is_the_same(name, backend, wanted, settings, device):
    module = layer(name, F, H, backend=backend, device=device, **settings, **LIKE)
    input = torch.randn(T, B, F, device=device, **LIKE).requires_grad_(wanted)
    output, leaves = module(input)[0].sin().sum(), [*module.parameters(), *([input] if wanted else ())]
    with _Watching():
        found = torch.autograd.grad(output, leaves, retain_graph=True)
    assert_equal_to(found, torch.autograd.grad(output, leaves))


def constants(graph):
    """The results of a traced graph that do not depend on its inputs."""
    depend = set()
    for node in graph.graph.nodes:
        if node.op == "placeholder" or depend.intersection(node.all_input_nodes):
            depend.add(node)
    return [result.name for result in graph.graph.output_node().all_input_nodes if result not in depend]


def assert_is_traced(run, first, second):
    """A graph of ``run``, traced with ``first``, gives the results of ``run`` for both inputs. It runs by kernels, and
    by the reference where gradients through it may be wanted. The error names the result that differs, and by how
    much."""
    graph = make_fx(run)(first)
    assert not constants(graph), f"{constants(graph)} are constants of{graph.code}"
    wrong = {}
    for which, input in (("what was traced", first), ("another input", second)):
        expected = [result.detach() for result in run(input)]
        for differentiable in (False, True):
            with torch.set_grad_enabled(differentiable):
                found = [result.detach() for result in graph(input)]
            try:
                assert_equal_to(found, expected)
            except AssertionError as error:
                wrong[which, "by the reference" if differentiable else "by kernels"] = str(error)
    assert not wrong, f"{wrong}, by{graph.code}"


@pytest.mark.parametrize("backend", ENGINES)
def test_what_is_traced_depends_on_its_input(backend, device):
    """A computation past the operators would be a constant of the graph."""
    module = layer("gru", F, H, backend=backend, device=device, **LIKE)

    def trained(input):
        with torch.enable_grad():
            output, _ = module(input)
            return output, *torch.autograd.grad(output.sin().sum(), [*module.parameters()])

    assert_is_traced(trained, *torch.randn(2, T, B, F, device=device, **LIKE))


@pytest.mark.parametrize("backend", ENGINES)
def test_what_is_traced_of_a_backward_depends_on_its_input(backend, device):
    """The layer ran before the tracing."""
    module = layer("gru", F, H, backend=backend, device=device, **LIKE)
    loss = module(torch.randn(T, B, F, device=device, **LIKE))[0].sum()

    def backward(scale):
        return torch.autograd.grad(loss, [*module.parameters()], scale, retain_graph=True)

    assert_is_traced(backward, torch.ones_like(loss), torch.full_like(loss, 2))


@pytest.mark.parametrize("gradients", (False, True))
@pytest.mark.parametrize("backend", ENGINES)
def test_tensors_without_memory(backend, gradients, device):
    with FakeTensorMode() as fake:
        module, input = layer("lstm", F, H, 2, backend=backend, device=device), torch.randn(T, B, F, device=device)
        with torch.set_grad_enabled(gradients):
            inside = module(input)[0]
    with torch.set_grad_enabled(gradients):
        outside = module(input)[0]
    for output in (inside, outside):
        assert output.fake_mode is fake and output.shape == (T, B, H)
        if gradients:
            found = torch.autograd.grad(output.sum(), [*module.parameters()])
            assert all(
                isinstance(g, FakeTensor) and g.shape == p.shape
                for g, p in zip(found, module.parameters(), strict=True)
            )


@pytest.mark.parametrize(("name", "backend"), [*cases(), *((name, "auto") for name in REGISTRY)])
def test_same_input_same_bits(name, backend, device):
    module = layer(name, 16, 33, 2, bidirectional=True, backend=backend, device=device)
    input = torch.randn(T, B, 16, device=device, requires_grad=True)
    found = []
    for _ in range(3):
        outputs = results(module, input, random_states(name, 4, B, 33, device=device, generator=generator(device)))
        found.append([*outputs, *gradients(outputs, [input, *module.parameters()])])
    for again in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(again, found[0], strict=True))


def generator(device):
    return torch.Generator(device).manual_seed(5)


@pytest.mark.parametrize(("name", "backend"), cases(("lstm", "gru"), dtype=torch.float64))
def test_many_gradients_at_once(name, backend, device):
    if backend == "torch":
        pytest.skip("what torch's own operators can is not ours")
    module = layer(name, F, H, backend=backend, device=device, **LIKE)
    input = torch.randn(T, B, F, device=device, requires_grad=True, **LIKE)
    output, _ = module(input)
    leaves, many = [input, *module.parameters()], torch.randn(6, *output.shape, device=device, **LIKE)
    found = torch.autograd.grad(output, leaves, many, is_grads_batched=True, retain_graph=True)
    each = [torch.autograd.grad(output, leaves, one, retain_graph=True) for one in many]
    assert_equal_to(found, [torch.stack(grads) for grads in zip(*each, strict=True)])
