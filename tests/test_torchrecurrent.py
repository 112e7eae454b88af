"""The cells that torchrecurrent has, too, against loops written out after its equations, in float64."""

import pytest
import torch
from support import as_tuple, like_module
from test_programs import CELLS
from torch.testing import assert_close
from torch.utils._pytree import tree_leaves
from torchrecurrent_loops import LOOPS

import seqcells

T, B, F, H = 4, 2, 3, 5


pytestmark = pytest.mark.usefixtures("own_registry")


def made(each):
    """A layer, its input and its states."""
    torch.manual_seed(7)
    cell = CELLS[each.cell]
    features = H if cell.streams.get("input") == "TBH" else F
    layer = seqcells.define(cell)[0](features, H, dtype=torch.float64, backend="reference", **each.options)
    with torch.no_grad():  # not ones and zeros, which would hide what is multiplied by them
        for parameter in layer.parameters():
            parameter.add_(torch.rand_like(parameter) - 0.5)
    sizes = layer.cell.sizes_by_letter(H) | {"F": features}
    states = [torch.randn(1, B, sizes[size], dtype=torch.float64) for size in layer.cell.state_sizes.values()]
    return layer, torch.randn(T, B, features, dtype=torch.float64), states


def weights(each, layer):
    return each.weights({name.removesuffix("_l0"): v for name, v in layer.named_parameters()})


@pytest.mark.parametrize("name", LOOPS)
def test_a_layer_is_the_loop(name):
    """Output, final states, all gradients."""
    each = LOOPS[name]
    layer, x, hx = made(each)
    leaves = [v.requires_grad_() for v in (x, *hx)] + [*layer.parameters()]
    output, final = layer(x, like_module(hx))
    w, states, outputs = weights(each, layer), [state[0] for state in hx], []
    for step in x:
        first, *states = each(w, step, *states)
        outputs.append(first)
    ours, theirs = [output, *as_tuple(final)], [torch.stack(outputs), *(state[None] for state in states)]
    assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    seeds = [torch.randn_like(v) for v in ours]
    kinds = {"allow_unused": True, "materialize_grads": True}
    assert_close(*(torch.autograd.grad(v, leaves, seeds, **kinds) for v in (ours, theirs)), rtol=1e-10, atol=1e-12)


@pytest.mark.heavy
@pytest.mark.parametrize("name", [name for name, each in LOOPS.items() if each.theirs])
def test_a_loop_is_theirs(name):
    """Of a step, by torchrecurrent itself; its weights have the same names and shapes."""
    package, each = pytest.importorskip("torchrecurrent"), LOOPS[name]
    layer, x, hx = made(each)
    cell = getattr(package, f"{each.theirs}Cell")(x.shape[2], H, **each.arguments).double()
    w = {key: v.detach() for key, v in weights(each, layer).items()}
    cell.load_state_dict({key: v for key, v in w.items() if not key.startswith("own")})
    w |= {key: torch.zeros_like(v) for key, v in w.items() if key.startswith("own")}
    states = [state[0] for state in hx]
    found, wanted = tree_leaves(each.call(cell, x[0], *states)), each(w, x[0], *states)
    assert_close(found, [*wanted][-len(found) :])  # theirs may be the states alone
