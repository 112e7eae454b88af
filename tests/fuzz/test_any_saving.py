"""Gradients equal the reference's, whether saved tensors pass through hooks or are computed again."""

import numpy
import pytest
import torch
from drawn_layers import ENGINES, SAME_NUMBERS, calls, function, rounds
from hypothesis import given
from hypothesis import strategies as st
from support import assert_equal_to, gradients
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-4}


def _hooked(pack, unpack):
    def call(run, *tensors):
        with saved_tensors_hooks(pack, unpack):
            return run(*tensors)

    return call


def _columns_first(tensor):
    """A layout like channels_last, for any number of dimensions."""
    return tensor.movedim(0, -1).contiguous().movedim(-1, 0) if tensor.dim() else tensor


def _wider(tensor):
    return tensor.double() if tensor.is_floating_point() else tensor


def _to_columns(tensor):
    return numpy.asfortranarray(tensor.detach().cpu().numpy()), tensor.device


def _from_columns(kept):
    array, device = kept
    return torch.from_numpy(array).to(device)


def _negated(tensor):
    return torch._neg_view(-tensor) if tensor.is_floating_point() else tensor


def _on_cpu(run, *tensors):
    with save_on_cpu():
        return run(*tensors)


def _computed_again(run, *tensors):
    return checkpoint(run, *tensors, use_reentrant=False)


def _kept_of_what_is_computed_again(run, *tensors):
    with save_on_cpu():
        return checkpoint(_on_cpu, run, *tensors, use_reentrant=False)


WAYS = {
    **{layout: _hooked(torch.clone, way) for layout, way in SAME_NUMBERS.items()},
    "columns first": _hooked(_columns_first, lambda tensor: tensor),
    "by numpy": _hooked(_to_columns, _from_columns),
    "wider": _hooked(_wider, lambda tensor: tensor),
    "wider for a while": _hooked(lambda tensor: (_wider(tensor), tensor.dtype), lambda kept: kept[0].to(kept[1])),
    "negated": _hooked(torch.clone, _negated),
    "on the CPU": _on_cpu,
    "computed again": _computed_again,
    "both": _kept_of_what_is_computed_again,
}


@pytest.mark.parametrize("examples", rounds(20, 300))
@pytest.mark.parametrize("backend", ENGINES)
def test_gradients_are_the_same_however_tensors_are_kept(backend, device, examples):
    @examples
    @given(drawn=calls(), way=st.sampled_from(list(WAYS)), dtype=st.sampled_from(list(TOLERANCES)))
    def check(drawn, way, dtype):
        run, leaves, boundaries, _ = function(drawn, backend, device, dtype)
        by_reference = function(drawn, "reference", device, dtype).run
        outputs, expected = WAYS[way](run, *leaves, *boundaries), by_reference(*leaves, *boundaries)
        found = [*outputs, *gradients(outputs, leaves)]
        assert_equal_to(found, [*expected, *gradients(expected, leaves)], TOLERANCES[dtype])

    check()
