"""The operators are well formed, are one node in a graph, and give the same numbers compiled, exported and eager."""

import pytest
import torch
from support import (
    MAIN,
    as_tuple,
    assert_equal_to,
    cases,
    gradients,
    heavy_if,
    layer,
    like_module,
    plain_if,
    random_states,
    results,
)
from test_gradcheck import problem

from seqcells.call import operators
from seqcells.cells import REGISTRY
from seqcells.request.recurrence import Recurrence

T, B, F, H = 5, 3, 4, 6


def arguments(name, boundaries=True, backend="reference"):
    """Arguments of ``seqcells::recurrence``, taken from the gradient tests."""
    run, inputs = problem(name, boundaries)
    seen = {}

    def keep(cell, gates_x, states, weights, lengths, reset, fresh):
        one = [state.unsqueeze(0) for state in states]
        fresh = fresh and [state.unsqueeze(0) for state in fresh]
        seen["args"] = operators.arguments(Recurrence(cell, gates_x, one, [weights], lengths, reset, fresh), backend)

    run(keep, *inputs)
    return seen["args"]


def opchecked():
    """In float64, every cell on every backend; in lower precision, cells with and without further states and
    parameters."""
    for name, backend in cases(form="recurrence", options=("lengths", "reset")):
        yield name, backend, torch.float64
        if name in (*MAIN, "peephole_lstm") and backend in ("reference", "cpu"):
            yield from ((name, backend, dtype) for dtype in (torch.float32, torch.bfloat16))


ONE_OF_FEWER_BITS = "gru", "cpu", torch.bfloat16


@plain_if(
    lambda name, backend, dtype, boundaries: (
        boundaries and ((name == "lstm" and dtype == torch.float64) or (name, backend, dtype) == ONE_OF_FEWER_BITS)
    )
)
@heavy_if(lambda name, boundaries, **_: boundaries or name in MAIN)  # every other cell has one form
@pytest.mark.parametrize("boundaries", (False, True))
@pytest.mark.parametrize(("name", "backend", "dtype"), list(opchecked()), ids=str)
def test_opcheck(name, backend, dtype, boundaries):
    args = arguments(name, boundaries, backend)
    args = torch.utils._pytree.tree_map_only(
        torch.Tensor, lambda t: t.detach().to(dtype).requires_grad_() if t.is_floating_point() else t, args
    )
    torch.library.opcheck(torch.ops.seqcells.recurrence.default, args)
    args = torch.utils._pytree.tree_map_only(torch.Tensor, torch.Tensor.detach, args)
    torch.library.opcheck(torch.ops.seqcells.recurrence_forward.default, args)
    results = torch.ops.seqcells.recurrence_forward(*args)
    count = 1 + len(REGISTRY[name].states)
    given = results[:1] + results[count:], results[:count]
    backward = torch.ops.seqcells.recurrence_backward.default
    torch.library.opcheck(backward, (*args, *given))
    before = storages((args, given))
    gradients = backward(*args, *given)
    assert not set(storages(gradients)) & set(before)
    assert storages((args, given)) == before


def storages(tree):
    """The storage address and the version counter of each tensor in a tree."""
    tensors = [t for t in torch.utils._pytree.tree_leaves(tree) if isinstance(t, torch.Tensor)]
    return [(t.untyped_storage().data_ptr(), t._version) for t in tensors]


@plain_if(lambda name, backend, options, **_: name == "lstm" and not options and backend != "reference")
@heavy_if(lambda name, backend, options, **_: name in MAIN or (not options and backend != "reference"))
@pytest.mark.parametrize("options", ({}, {"num_layers": 2, "bidirectional": True}), ids=("plain", "deep"))
@pytest.mark.parametrize(("name", "backend"), [*cases(options=("lengths", "reset")), ("lstm", "auto"), ("gru", "auto")])
def test_compiled_whole_equals_eager(name, backend, options, device):
    torch._dynamo.reset()
    module = layer(name, F, H, backend=backend, dtype=torch.float64, device=device, **options)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    like = {"dtype": torch.float64, "device": device, "requires_grad": True}
    count = module.num_layers * (2 if module.bidirectional else 1)
    # Several lengths only outside the interpreter, which is slow; graphs for several lengths do not depend on the
    # backend.
    for steps in (T,) if backend.startswith("triton") and device == "cpu" else (T, T + 2, T + 9):
        input, hx = torch.randn(steps, B, F, **like), random_states(name, count, B, H, **like)
        for kwargs in (
            {},
            {"lengths": torch.tensor([2, 0, steps], device=device)},
            {"reset": torch.rand(steps, B, device=device) < 0.3, "reset_state": like_module(hx)},
        ):
            found = []
            for run in (module, compiled):
                outputs = results(run, input, hx, **kwargs)
                found.append([*outputs, *gradients(outputs, [input, *hx, *module.parameters()])])
            assert_equal_to(found[1], found[0])


@plain_if(lambda name, **_: name in MAIN)
@pytest.mark.parametrize("name", REGISTRY)
def test_graph_holds_one_node_however_long_the_sequence(name):
    module = layer(name, F, H, 2, bidirectional=True, batch_first=True)
    batch, steps = torch.export.Dim("batch", min=2), torch.export.Dim("steps", min=2)
    input = torch.randn(B, T, F)
    program = torch.export.export(module, (input,), dynamic_shapes={"input": {0: batch, 1: steps}}, strict=True)
    nodes = [n for n in program.graph.nodes if n.op == "call_function" and "seqcells" in str(n.target)]
    assert len(nodes) == 2
    for shape in ((B, T), (2, 50)):
        input = torch.randn(*shape, F)
        got, expected = program.module()(input), module(input)
        assert_equal_to([got[0], *as_tuple(got[1])], [expected[0], *as_tuple(expected[1])], 1e-6)
