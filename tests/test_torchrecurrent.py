"""The cells that torchrecurrent has too: its numbers in float64, or the paper's where its code differs from the
paper."""

import pytest
import torch
import torchrecurrent
from loops import LOOPS
from support import as_tuple, like_module
from test_programs import CELLS
from torch.testing import assert_close

import seqcells

T, B, F, H = 20, 2, 3, 5


pytestmark = pytest.mark.usefixtures("own_registry")


def made(each):
    """A layer, its input, its states, its streams."""
    torch.manual_seed(7)
    cell = CELLS[each.cell]
    features = H if cell.streams.get("input") == "TBH" else F
    layer = seqcells.define(cell)[0](features, H, dtype=torch.float64, backend="reference", **each.options)
    with torch.no_grad():  # not ones and zeros, which would hide errors in what is multiplied by them
        for parameter in layer.parameters():
            parameter.add_(torch.rand_like(parameter) - 0.5)
        if each.zeros:
            name, block, blocks = each.zeros
            getattr(layer, f"{name}_l0").chunk(blocks)[block].zero_()
    sizes = layer.cell.sizes_by_letter(H) | {"F": features}
    states = [torch.randn(1, B, sizes[size], dtype=torch.float64) for size in layer.cell.state_sizes.values()]
    streams = {}
    for name, axes in layer.cell.streams.items():
        if name != "input":
            streams[name] = torch.rand(T, B, *(sizes[letter] for letter in axes[2:]), dtype=torch.float64)
    if "mask" in streams:
        streams["mask"] = streams["mask"].round()
    return layer, torch.randn(T, B, features, dtype=torch.float64), states, streams


@pytest.mark.parametrize("name", LOOPS)
def test_a_layer_is_the_loop(name):
    """Output, final states, all gradients."""
    each = LOOPS[name]
    layer, x, hx, streams = made(each)
    leaves = [v.requires_grad_() for v in (x, *hx)] + [*layer.parameters()]
    output, final = layer(x, like_module(hx), **streams)
    weights = {name.removesuffix("_l0"): v for name, v in layer.named_parameters()}
    states, outputs = [state[0] for state in hx], []
    for t, step in enumerate(x):
        first, *states = each.step(weights, step, tuple(states), **{name: v[t] for name, v in streams.items()})
        outputs.append(first)
    ours, theirs = [output, *as_tuple(final)], [torch.stack(outputs), *(state[None] for state in states)]
    assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    seeds = [torch.randn_like(v) for v in ours]
    kinds = {"allow_unused": True, "materialize_grads": True}
    ours, theirs = (list(torch.autograd.grad(v, leaves, seeds, **kinds)) for v in (ours, theirs))
    if each.zeros:  # their cell has no such bias
        name, block, blocks = each.zeros
        place = 1 + len(hx) + [*weights].index(name)
        assert not theirs[place].chunk(blocks)[block].any() and ours[place].chunk(blocks)[block].any()
        ours[place].chunk(blocks)[block].zero_()
    assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


OTHERS = {"SCRN": "its output y is the product of a weight and y, where the paper has the hidden units"}
"""The cells of torchrecurrent that none of ours should equal. `loops` has the paper's step."""


def test_every_cell_of_theirs_is_here():
    names = {name.removesuffix("Cell") for name in torchrecurrent.__all__ if name.endswith("Cell")}
    assert names == {each.theirs for each in LOOPS.values()} - {""} | OTHERS.keys()
