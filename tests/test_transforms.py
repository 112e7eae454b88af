"""torch.func and its kin: vmap, jvp, per-sample gradients; autocast; eval; the same bits twice."""

import pytest
import torch
from support import TORCH_LAYERS, as_tuple, assert_equal_to, backends, cases, gradients, layer, random_states, results
from torch.func import functional_call, grad, jacrev, jvp, vmap
from torch.utils._python_dispatch import TorchDispatchMode

from seqcells import dispatch
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


@pytest.mark.parametrize("backend", [name for name in backends("gru") if dispatch.BACKENDS[name].engine])
def test_whoever_watches_sees_operators(backend, device):
    """Forward and backward, also where one ran before they came."""
    module = layer("gru", F, H, backend=backend, device=device)
    input = torch.randn(T, B, F, device=device)
    with _Watching() as whole:
        module(input)[0].sum().backward()
    output = module(input)[0].sum()
    with _Watching() as half:
        output.backward()
    assert "seqcells.recurrence.default" in whole.seen
    for found in (whole.seen, half.seen):
        assert "seqcells.recurrence_backward.default" in found


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


@pytest.mark.parametrize("name", REGISTRY)
def test_autocast(name, device):
    module = layer(name, F, H, 2, bidirectional=True, backend="reference", device=device)
    input = torch.randn(T, B, F, device=device)
    half = layer(name, F, H, 2, bidirectional=True, device=device, dtype=torch.bfloat16)
    half.load_state_dict(module.state_dict())
    half.backend = "reference"
    with torch.autocast(device, torch.bfloat16):
        outputs = results(module, input, random_states(name, 4, B, H, device=device, generator=generator(device)))
    states = random_states(name, 4, B, H, device=device, generator=generator(device))
    expected = results(half, input.bfloat16(), [s.bfloat16() for s in states])
    assert all(o.dtype == torch.bfloat16 for o in outputs)
    assert_equal_to(outputs, expected, 0)
    loss = outputs[0].float().sum()
    assert all(g.dtype == torch.float32 for g in torch.autograd.grad(loss, list(module.parameters())))


@pytest.mark.parametrize("name", TORCH_LAYERS)
def test_autocast_by_default_is_torchs(name, device):
    module = layer(name, F, H, 2, device=device)
    theirs = TORCH_LAYERS[name](F, H, 2, device=device)
    theirs.load_state_dict(module.state_dict())
    input = torch.randn(T, B, F, device=device)
    with torch.autocast(device, torch.bfloat16):
        ours, torchs = module(input), theirs(input)
    assert_equal_to([ours[0], *as_tuple(ours[1])], [torchs[0], *as_tuple(torchs[1])], 0)


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
