"""In-place operations on a module's results: allowed where torch.nn allows them, or an error that names the copy."""

import pytest
import torch
from support import ENGINES, TORCH_CELLS, as_tuple, assert_equal_to, backends, cell, gradients, layer

SIZES = {"small": (3, 2, 5), "large": (64, 16, 32)}
"""Steps, batch and hidden units; for a large output the CPU engine uses its own memory."""
LIKE = {"dtype": torch.float64}


@pytest.mark.parametrize("change", (torch.relu_, lambda o: torch.nn.functional.dropout(o, 0.5, inplace=True)))
@pytest.mark.parametrize("watched", (False, True), ids=("", "compiled"))
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("backend", ENGINES)
def test_an_output_changed_before_backward_names_the_copy(backend, size, watched, change):
    steps, batch, hidden = SIZES[size]
    module, input = layer("gru", 4, hidden, backend=backend), torch.randn(steps, batch, 4)
    run = torch.compile(module, backend="eager", fullgraph=True) if watched else module
    output = change(run(input)[0])
    with pytest.raises(RuntimeError, match=r"modified by an inplace operation.*output\.clone\(\)"):
        output.sum().backward()
    torch.manual_seed(1)
    output = change(run(input)[0].clone()).sum()
    expected = layer("gru", 4, hidden, backend="reference")
    expected.load_state_dict(module.state_dict())
    torch.manual_seed(1)
    truth = change(expected(input)[0]).sum()
    assert_equal_to(gradients([output], [*module.parameters()]), gradients([truth], [*expected.parameters()]), 1e-5)


@pytest.mark.parametrize("grad", (False, True), ids=("inference", "training"))
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("backend", backends("gru", devices=["cpu"]))
def test_an_output_is_no_view(backend, size, grad):
    steps, batch, hidden = SIZES[size]
    module, input = layer("gru", 4, hidden, backend=backend), torch.randn(steps, batch, 4)
    with torch.set_grad_enabled(grad):
        for _ in range(4):
            output, final = module(input)
            for tensor in (output, final):
                expected = tensor.detach().clone().relu()
                assert torch.equal(tensor.detach_().relu_(), expected) and not tensor.requires_grad
            output.resize_(1, 2)
            assert output.shape == (1, 2)


@pytest.mark.parametrize("grad", (False, True), ids=("inference", "training"))
@pytest.mark.parametrize("backend", ("auto", *backends("lstm", devices=["cpu"])))
@pytest.mark.parametrize("name", ("lstm", "gru", "rnn_tanh"))
def test_a_cells_state_can_be_detached_in_place(name, backend, grad):
    """As in truncated backpropagation through time."""
    ours, theirs = cell(name, 4, 5, backend=backend, **LIKE), TORCH_CELLS[name](4, 5, **LIKE)
    theirs.load_state_dict(ours.state_dict())
    input, found = torch.randn(6, 3, 4, **LIKE), []
    for module in (ours, theirs):
        states = None
        with torch.set_grad_enabled(grad):
            for t, x in enumerate(input):
                states = module(x, states)
                if t == 3:
                    for state in as_tuple(states):
                        state.detach_()
        found.append([*as_tuple(states), *(gradients(as_tuple(states), [*module.parameters()]) if grad else ())])
    assert_equal_to(*found)


@pytest.mark.parametrize("backend", ENGINES)
@pytest.mark.parametrize("name", ("lstm", "gru"))
def test_a_cells_state_changed_in_place_has_the_gradients_of_what_it_became(name, backend):
    ours, theirs = cell(name, 4, 5, backend=backend, **LIKE), TORCH_CELLS[name](4, 5, **LIKE)
    theirs.load_state_dict(ours.state_dict())
    input = torch.randn(3, 4, **LIKE)
    found = []
    for module in (ours, theirs):
        states = as_tuple(module(input))
        for state in states:
            state.mul_(3)
        found.append(gradients([state.sin() for state in states], [*module.parameters()]))
    assert_equal_to(*found)
