"""For any arguments, the operators raise or return the reference's numbers, and never read or write out of bounds.

Layouts, sizes and dtypes of one or several tensors are changed at random. Tensors are left out, given twice or renamed.
"""

import pytest
import torch
from drawn_layers import CELLS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import assert_equal_to

from seqcells.backends import BACKENDS
from seqcells.call import operators
from seqcells.cells import REGISTRY, PeepholeLSTM, register
from seqcells.request.recurrence import Recurrence
from seqcells.request.weights import Weights

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(bool(BACKENDS["cpu"].why_not_available()), reason="the CPU engine is not built"),
]
ERRORS = RuntimeError, TypeError, ValueError, IndexError


def _sliced(tensor):
    return torch.stack([tensor, tensor], -1)[..., 0]


def _turned(tensor):
    return tensor.transpose(0, -1).contiguous().transpose(0, -1) if tensor.dim() else tensor


HARMLESS = {
    "sliced": _sliced,
    "turned": _turned,
    "negated": lambda tensor: torch._neg_view(-tensor) if tensor.is_floating_point() else tensor,
    "offset": lambda tensor: torch.cat([tensor.new_zeros(1), tensor.flatten()])[1:].view(tensor.shape),
}
HARMFUL = {
    "shorter": lambda tensor: tensor[:-1],
    "narrower": lambda tensor: tensor[..., :-1],
    "longer": lambda tensor: torch.cat([tensor, tensor]),
    "flat": lambda tensor: tensor.flatten() if tensor.dim() != 1 else tensor.unsqueeze(0),
    "a number": lambda tensor: tensor.new_zeros(()),
    "of nothing": lambda tensor: tensor.new_zeros((0, *tensor.shape[1:])),
    "halved": lambda tensor: tensor.half() if tensor.is_floating_point() else tensor.float(),
    "without memory": lambda tensor: tensor.to("meta"),
}


@st.composite
def calls(draw):
    name = draw(st.sampled_from(CELLS))
    cell = REGISTRY[name]
    steps, batch, hidden = draw(st.integers(1, 5)), draw(st.integers(1, 9)), draw(st.sampled_from([1, 3, 8, 17]))
    directions = draw(st.integers(1, 2))
    width = draw(st.integers(1, hidden)) if cell.projection and draw(st.booleans()) else 0
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))

    def tensor(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    def states():
        return [tensor(directions, batch, hidden if k else width or hidden) for k in range(len(cell.states))]

    recurrent = len(cell.recurrent_gates) * hidden
    weights = tuple(
        Weights(
            hh=tensor(recurrent, width or hidden) if recurrent else None,
            bias_hh=tensor(recurrent) if recurrent else None,
            hr=tensor(width, hidden) if width else None,
            own=tuple(tensor(len(rows), hidden) for rows in cell.parameters.values()),
        )
        for _ in range(directions)
    )
    lengths = torch.randint(0, steps + 1, (batch,), generator=generator) if draw(st.booleans()) else None
    reset = torch.rand(steps, batch, generator=generator) < 0.3 if draw(st.booleans()) else None
    fresh = states() if reset is not None and draw(st.booleans()) else None
    gates_x = tensor(steps, batch, directions * len(cell.gates) * hidden)
    return Recurrence(cell, gates_x, states(), weights, lengths, reset, fresh, draw(st.booleans()))


def changed(draw, tensors, changes):
    """A copy of the list with one or several tensors changed."""
    tensors = list(tensors)
    for place in draw(st.lists(st.integers(0, len(tensors) - 1), min_size=1, max_size=3, unique=True)):
        tensors[place] = changes[draw(st.sampled_from(list(changes)))](tensors[place])
    return tensors


def run(arguments, given=None):
    """Results and gradients by the operators; ``given`` replaces forward's results."""
    states = sum(name.startswith("state_") for name in arguments[3].split())
    results = torch.ops.seqcells.recurrence_forward(*arguments)
    saved, gradients = given or ([results[0], *results[1 + states :]], results[: 1 + states])
    return saved, gradients, torch.ops.seqcells.recurrence_backward(*arguments, saved, gradients)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(calls(), st.data())
def test_tensors_that_lie_otherwise_give_the_same(q, data):
    cell, program, tensors, names, *rest = operators.arguments(q, "cpu")
    saved, seeds, expected = run(operators.arguments(q, "reference"))
    own, own_seeds, found = run((cell, program, changed(data.draw, tensors, HARMLESS), names, *rest))
    assert_equal_to([own[0], *own_seeds, *found], [saved[0], *seeds, *expected])
    given = changed(data.draw, own, HARMLESS), changed(data.draw, own_seeds, HARMLESS)
    assert_equal_to(run((cell, program, tensors, names, *rest), given)[2], expected)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(calls(), st.data())
def test_tensors_that_do_not_fit_raise_or_do_not_matter(q, data):
    """Some changes have no effect, for example a copy of a single row. The numbers are then the reference's."""
    arguments = operators.arguments(q, "cpu")
    cell, program, tensors, names, *rest = arguments
    own, seeds, _ = run(arguments)
    what = data.draw(st.sampled_from(["inputs", "saved", "gradients", "fewer", "names"]))
    given = None
    if what == "inputs":
        tensors = changed(data.draw, tensors, HARMFUL)
    elif what == "saved":
        given = changed(data.draw, own, HARMFUL), seeds
    elif what == "gradients":
        given = own, changed(data.draw, seeds, HARMFUL)
    elif what == "fewer":
        place = data.draw(st.integers(0, len(tensors) - 1))
        tensors, listed = tensors[:place] + tensors[place + 1 :], names.split()
        names = " ".join(listed[:place] + listed[place + 1 :])
    else:
        listed = names.split()
        listed[data.draw(st.integers(0, len(listed) - 1))] = data.draw(st.sampled_from([*names.split(), "dt", "x_0"]))
        names = " ".join(listed)
    try:
        found = run((cell, program, tensors, names, *rest), given)
    except ERRORS:
        return
    by_reference = cell, program, tensors, names, rest[0], "reference"
    saved, seeds, expected = run(by_reference, None if given is None else (given[0][:1], given[1]))
    # Values that forward kept in half precision are no nearer.
    assert_equal_to([found[0][0], *found[1], *found[2]], [saved[0], *seeds, *expected], 1e-2)


@pytest.mark.parametrize("steps", [1, 3])
def test_a_square_parameter_that_is_turned(steps):
    """The parameter is transposed in memory. Its gradient's memory follows the gradient's own layout, not the
    parameter's."""
    register(PeepholeLSTM)  # which sanitizers leave out, because they have no kernels of its projected form
    cell, kind = PeepholeLSTM, {"dtype": torch.float64}
    weights = Weights(hh=torch.randn(12, 3, **kind), bias_hh=torch.randn(12, **kind), own=(torch.randn(3, 3, **kind),))
    states = [torch.randn(1, 2, 3, **kind) for _ in cell.states]
    q = Recurrence(cell, torch.randn(steps, 2, 12, **kind), states, (weights,))
    name, program, tensors, names, *rest = operators.arguments(q, "cpu")
    _, _, expected = run((name, program, tensors, names, *rest))
    found = run((name, program, [*tensors[:-1], _turned(tensors[-1])], names, *rest))[2]
    assert_equal_to(found, expected)
