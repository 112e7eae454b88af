"""Backward gives the gradients that were wanted when forward ran, makes no others, and has forward's precision.

The Triton engines are tested in their interpreter too: `test_triton` runs this file in such a process.
"""

import pytest
import torch
from support import ENGINES, MAIN, assert_equal_to, cases, layer, like_module, plain_if, random_states

import seqcells

T, B, F, H = 4, 3, 5, 6
LIKE = {"dtype": torch.float64}
WAYS = [(backend, again) for backend in ENGINES for again in (False, True)[: 1 + backend.startswith("triton")]]
"""Backends, and whether they recompute values that forward did not keep."""
CASES = [(name, *way) for name, backend in cases(dtype=torch.float64) for way in WAYS if way[0] == backend]
KINDS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "hx", "input")


def case(name, backend, device, **settings):
    """A module, and all tensors by name that may have gradients; a kind selects all parameters of that kind."""
    module = layer(name, F, H, bidirectional=True, backend=backend, device=device, **settings)
    states = random_states(name, 2, B, H, device=device, dtype=next(module.parameters()).dtype)
    given = {"input": torch.randn(T, B, F, device=device, dtype=states[0].dtype)}
    given |= {f"hx {k}": state for k, state in enumerate(states)} | dict(module.named_parameters())
    return module, given


def output_of(module, given):
    states = [tensor for name, tensor in given.items() if name.startswith("hx")]
    return module(given["input"], like_module(states))[0]


@plain_if(lambda name, kind, frozen, **_: name in MAIN or (kind == "hx" and frozen))
@pytest.mark.parametrize("frozen", (False, True), ids=("alone", "frozen"))
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("name", "backend", "recompute"), CASES)
def test_of_some_tensors(name, backend, kind, frozen, recompute, device):
    """The tensors of one kind, or all other tensors: the gradients equal those when all are wanted."""
    module, given = case(name, backend, device, **LIKE)
    if not any(own.startswith(kind) for own in given):
        pytest.skip("the cell has none")
    with seqcells.settings(recompute=recompute):
        for tensor in given.values():
            tensor.requires_grad_()
        every = torch.autograd.grad(output_of(module, given).sin().sum(), [*given.values()], allow_unused=True)
        expected = dict(zip(given, every, strict=True))
        for own, tensor in given.items():
            tensor.requires_grad_(own.startswith(kind) != frozen)
        wanted = {own: tensor for own, tensor in given.items() if tensor.requires_grad}
        found = torch.autograd.grad(output_of(module, given).sin().sum(), [*wanted.values()], allow_unused=True)
    for own, gradient in zip(wanted, found, strict=True):
        assert (gradient is None) == (expected[own] is None), own
        if gradient is not None:
            assert_equal_to([gradient], [expected[own]])


@pytest.mark.parametrize("backend", ENGINES)
def test_what_is_detached_after_forward_had_a_gradient(backend, device):
    """A tensor that requires gradients only after forward had none."""
    module, given = case("gru", backend, device, **LIKE)
    leaf = given["input"].requires_grad_()
    (expected,) = torch.autograd.grad(output_of(module, given).sin().sum(), leaf)
    given["input"] = leaf * 1
    output = output_of(module, given).sin().sum()
    given["input"].detach_()
    assert_equal_to(torch.autograd.grad(output, leaf), [expected])

    given["input"] = leaf.detach().clone()
    output = output_of(module, given).sin().sum()
    given["input"].requires_grad_()
    assert torch.autograd.grad(output, given["input"], allow_unused=True) == (None,)


@pytest.mark.parametrize("again", (False, True), ids=("once", "differentiable"))
@pytest.mark.parametrize(("backend", "recompute"), WAYS)
def test_autocast_around_backward_changes_nothing(backend, again, recompute, device):
    module, given = case("lstm", backend, device)
    leaves = [tensor.requires_grad_() for tensor in given.values()]
    with seqcells.settings(recompute=recompute):
        output = output_of(module, given).sin().sum()
        expected = torch.autograd.grad(output, leaves, create_graph=again, retain_graph=True)
        with torch.autocast(device, torch.bfloat16):
            found = torch.autograd.grad(output, leaves, create_graph=again)
    assert all(map(torch.equal, found, expected))
