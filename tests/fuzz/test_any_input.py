"""For any sizes, memory layout, lengths and resets, each engine gives the reference's numbers and gradients."""

import pytest
import torch
from drawn_layers import ENGINES, FUZZ, calls, function
from hypothesis import given, settings
from hypothesis import strategies as st
from support import assert_equal_to, gradients


def everything(drawn, backend, device):
    """Outputs, final states, and the gradients of all tensors, as a backend computes them."""
    run, leaves, boundaries, _ = function(drawn, backend, device)
    found = run(*leaves, *boundaries)
    return [*found, *gradients(found, leaves)]


@pytest.fixture
def threads():
    yield torch.set_num_threads
    torch.set_num_threads(1)


@settings(FUZZ, max_examples=100)
@given(drawn=calls(), count=st.integers(1, 3))
@pytest.mark.parametrize("backend", ENGINES)
def test_an_engine_equals_the_reference(backend, device, threads, drawn, count):
    threads(count)
    found = everything(drawn, backend, device)
    threads(1)
    assert_equal_to(found, everything(drawn, "reference", device))
