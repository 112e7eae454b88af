"""float32 is as near to float64 as torch.nn's own, for each instruction set, and for sums of any length."""

import statistics

import pytest
import torch
from nearness import ALLOWED, ratios, too_far
from support import distance

import seqcells
from seqcells.kernels import cpu

if cpu.why_not_available():
    pytest.skip(f"the CPU engine is not here: {cpu.why_not_available()}", allow_module_level=True)


@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16), ids=str)
@pytest.mark.parametrize("options", ({}, {"num_layers": 2, "bidirectional": True}), ids=("plain", "deep"))
@pytest.mark.parametrize("name", ("lstm", "gru", "rnn_tanh"))
def test_each_instruction_set_is_as_near_as_torch(name, options, dtype, target):
    assert not too_far(name, "cpu", (40, 8, 32, 48), dtype, **options)


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
    """Over sizes whose sums have up to sixty thousand terms; small sizes are measured with several seeds."""
    found = {}
    for sizes in SIZES:
        seeds = 3 if sizes[0] * sizes[1] < 20_000 else 1
        found |= {(sizes, what): ratio for what, ratio in ratios(name, "cpu", sizes, seeds=range(seeds)).items()}
    assert statistics.median(found.values()) <= 1.1, found
    assert not {key: ratio for key, ratio in found.items() if ratio > ALLOWED[torch.float32]}


def test_a_bias_over_many_rows():
    """A single chain of additions over a step's rows was three times as far as torch.nn."""
    for what, ratio in ratios("gru", "cpu", (10, 1000, 8, 64), seeds=range(2)).items():
        assert ratio <= ALLOWED[torch.float32], what


@pytest.mark.heavy
def test_a_product_over_millions_of_terms():
    """The gradient of a weight over two million steps and rows, against torch's own product."""
    torch.manual_seed(0)
    left, right = torch.randn(2_000_000, 8), torch.randn(2_000_000, 8)
    truth = left.double().T @ right.double()
    found = seqcells.kernels.cpu.linear.gemm(left.T, right)
    assert distance(found, truth) <= 1.5 * distance(left.T @ right, truth)
