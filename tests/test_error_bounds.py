"""Float32 is as near to float64 as torch.nn's own: for each instruction set, and for sums of any length.

A distance is the root mean square of the error, relative to the truth's; what is compared is ours over torch.nn's.
"""

import statistics

import pytest
import torch
from support import (
    TORCH_LAYERS,
    distance,
    gradients,
    random_states,
    results,
)
from test_parity import ALLOWED, pair

import seqcells
from seqcells.kernels import cpu

if cpu.unavailable():
    pytest.skip(f"the CPU engine is not here: {cpu.unavailable()}", allow_module_level=True)


def ratios(name, steps, batch, features, hidden, dtype=torch.float32, seeds=1, **options):
    """For each result and gradient, by name: our distance over torch.nn's, the numbers of all seeds as one sample."""
    ours, torchs, truths = {}, {}, {}
    for seed in range(seeds):
        torch.manual_seed(seed)
        theirs, mine = pair(name, "cpu", "cpu", dtype, (features, hidden), **options)
        exact = TORCH_LAYERS[name](features, hidden, dtype=torch.float64, **options)
        exact.load_state_dict(theirs.state_dict())
        count = theirs.num_layers * (2 if theirs.bidirectional else 1)
        data = [torch.randn(steps, batch, features), *random_states(name, count, batch, hidden)]
        data = [tensor.to(dtype) for tensor in data]
        for module, kept in ((exact, truths), (theirs, torchs), (mine, ours)):
            weights = list(module.parameters())
            input, *hx = (tensor.to(weights[0].dtype).requires_grad_() for tensor in data)
            outputs = results(module, input, hx)
            found = [*outputs, *gradients(outputs, [input, *hx, *weights])]
            names = ["output", *mine.cell.states, "input", *(f"{state}_0" for state in mine.cell.states)]
            names += [n for n, _ in mine.named_parameters()]
            for what, tensor in zip(names, found, strict=True):
                kept.setdefault(what, []).append(tensor.detach().double().flatten())
    joined = [{what: torch.cat(parts) for what, parts in kept.items()} for kept in (ours, torchs, truths)]
    ours, torchs, truths = joined
    return {what: distance(ours[what], truth) / distance(torchs[what], truth) for what, truth in truths.items()}


@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16), ids=str)
@pytest.mark.parametrize("options", ({}, {"num_layers": 2, "bidirectional": True}), ids=("plain", "deep"))
@pytest.mark.parametrize("name", ("lstm", "gru", "rnn_tanh"))
def test_each_instruction_set_is_as_near_as_torch(name, options, dtype, target):
    found = ratios(name, 40, 8, 32, 48, dtype, **options)
    assert not {what: ratio for what, ratio in found.items() if ratio > ALLOWED[dtype]}


# Steps, rows, features, units: long in time, many rows, long in both, deep products.
SIZES = (
    (10, 1000, 16, 64),
    (2000, 1, 16, 64),
    (2000, 30, 16, 32),
    (300, 300, 16, 32),
    (37, 500, 40, 48),
    (20, 16, 512, 512),
    (60, 5, 700, 100),
    (200, 64, 32, 96),
)


@pytest.mark.heavy
@pytest.mark.parametrize("name", ("lstm", "gru"))
def test_no_sum_is_long(name, target):
    """Over sizes whose sums have up to sixty thousand terms; the small ones are taken several times."""
    found = {}
    for sizes in SIZES:
        seeds = 3 if sizes[0] * sizes[1] < 20_000 else 1
        found |= {(sizes, what): ratio for what, ratio in ratios(name, *sizes, seeds=seeds).items()}
    assert statistics.median(found.values()) <= 1.1, found
    assert not {key: ratio for key, ratio in found.items() if ratio > 1.5}


def test_a_bias_over_many_rows():
    """One chain over a step's rows was three times as far as torch.nn."""
    for what, ratio in ratios("gru", 10, 1000, 8, 64, seeds=2).items():
        assert ratio <= 1.5, what


@pytest.mark.heavy
def test_a_product_over_millions_of_terms():
    """The gradient of a weight over two million steps and rows, against torch's own product."""
    torch.manual_seed(0)
    left, right = torch.randn(2_000_000, 8), torch.randn(2_000_000, 8)
    truth = left.double().T @ right.double()
    found = seqcells.kernels.cpu.linear.gemm(left.T, right)
    assert distance(found, truth) <= 1.5 * distance(left.T @ right, truth)
