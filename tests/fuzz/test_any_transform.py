"""Any torch.func transform of a layer, or of a graph that holds the layer, equals autograd on single calls."""

import pytest
import torch
from drawn_layers import ENGINES, calls, function, rounds
from hypothesis import given
from hypothesis import strategies as st
from support import assert_equal_to, gradients
from torch.func import grad, jacrev, jvp, vjp, vmap
from torch.fx.experimental.proxy_tensor import make_fx

COPIES = 3
SMALL = {"hidden": (1, 2, 3, 8), "steps": 4, "batch": 4}


def _loss(run):
    return lambda *tensors: sum(output.sin().sum() for output in run(*tensors))


def _rows(run):
    """A number for each output, so that the Jacobian is small."""
    return lambda *tensors: torch.stack([output.sin().sum() for output in run(*tensors)])


def _split(run, given, count):
    """The function of the leaves alone, and the leaves."""
    return lambda *leaves: run(*leaves, *given[count:]), given[:count]


# The transforms by torch.func: functions of a call, its tensors, and how many of the tensors have gradients.


def _forward(run, given, count):
    return run(*given)


def _grad(run, given, count):
    return grad(_loss(run), argnums=tuple(range(count)))(*given)


def _vjp(run, given, count):
    of_leaves, leaves = _split(run, given, count)
    outputs, pull = vjp(of_leaves, *leaves)
    return *outputs, *pull([output.cos() for output in outputs])


def _jvp(run, given, count):
    of_leaves, leaves = _split(run, given, count)
    outputs, along = jvp(of_leaves, leaves, tuple(leaf.cos() for leaf in leaves))
    return *outputs, *along


def _jacrev(run, given, count):
    return jacrev(_rows(run), argnums=tuple(range(count)))(*given)


def _along_gradient(run, given, count):
    of_leaves, leaves = _split(run, given, count)
    return jvp(grad(_loss(of_leaves), argnums=tuple(range(count))), leaves, tuple(leaf.cos() for leaf in leaves))[1]


# The same results by autograd.


def _gradients(outputs, leaves, seeds=None, create_graph=False):
    return torch.autograd.grad(outputs, leaves, seeds, create_graph=create_graph, materialize_grads=True)


def _grad_by_autograd(run, given, count):
    return _gradients(_loss(run)(*given), given[:count])


def _vjp_by_autograd(run, given, count):
    outputs = run(*given)
    return *outputs, *_gradients(outputs, given[:count], [output.cos() for output in outputs])


def _jvp_by_autograd(run, given, count):
    """Differentiate the gradients by their seeds, along a direction: gradients are linear in the seeds."""
    outputs, leaves = run(*given), given[:count]
    seeds = [torch.zeros_like(output, requires_grad=True) for output in outputs]
    pulled = _gradients(outputs, leaves, seeds, create_graph=True)
    return *outputs, *_gradients(sum((g * leaf.cos()).sum() for g, leaf in zip(pulled, leaves, strict=True)), seeds)


def _jacrev_by_autograd(run, given, count):
    each = [_gradients(row, given[:count], create_graph=True) for row in _rows(run)(*given)]
    return [torch.stack(rows) for rows in zip(*each, strict=True)]


def _along_gradient_by_autograd(run, given, count):
    leaves = given[:count]
    first = _gradients(_loss(run)(*given), leaves, create_graph=True)
    return _gradients(sum((g * leaf.detach().cos()).sum() for g, leaf in zip(first, leaves, strict=True)), leaves)


TRANSFORMS = {
    "forward": (_forward, _forward),
    "grad": (_grad, _grad_by_autograd),
    "vjp": (_vjp, _vjp_by_autograd),
    "jvp": (_jvp, _jvp_by_autograd),
    "jacrev": (_jacrev, _jacrev_by_autograd),
    "jvp of grad": (_along_gradient, _along_gradient_by_autograd),
}
"""Each transform by torch.func, and by autograd."""
DRAWN = [*TRANSFORMS, "forward", "forward"]
"""Forward is drawn more often, to test more of the operators' own vmap rule, for weights that are not mapped."""


def _copies(tensor, kind, steps):
    """The tensor and similar tensors."""
    if kind == "lengths":
        return [(tensor + k) % (steps + 1) for k in range(COPIES)]
    if kind == "reset":
        return [tensor.roll(k, 0) for k in range(COPIES)]
    return [tensor * (1 - 0.3 * k) for k in range(COPIES)]


def _mapped(draw, function, steps):
    """The tensors of each copy, and the tensors stacked over copies, with the stacked dimensions. Only tensors of some
    kinds are mapped, but of these kinds all."""
    given = [tensor.detach() for tensor in (*function.leaves, *function.boundaries)]
    mapped = draw(st.lists(st.sampled_from(sorted({*function.kinds})), min_size=1, unique=True))
    each, stacked, dims = [], [], []
    for tensor, kind in zip(given, function.kinds, strict=True):
        if kind in mapped:
            each.append(_copies(tensor, kind, steps))
            dims.append(draw(st.integers(-tensor.dim() - 1, tensor.dim())))
            stacked.append(torch.stack(each[-1], dims[-1]))
        else:
            each.append([tensor] * COPIES)
            dims.append(None)
            stacked.append(tensor)
    return list(zip(*each, strict=True)), stacked, tuple(dims)


def _graph(function):
    """A graph that holds the operators, as a function of the same tensors in any memory layout. It is traced before
    autograd, so that torch's own operators stay whole in it."""
    given = [tensor.detach() for tensor in (*function.leaves, *function.boundaries)]
    with torch.no_grad():
        graph = make_fx(function.run, pre_dispatch=True)(*given)
    assert any("seqcells" in str(node.target) for node in graph.graph.nodes)
    return graph


@pytest.mark.parametrize("examples", rounds(10, 100))
@pytest.mark.parametrize("backend", ("auto", *ENGINES))
def test_a_transform_is_what_autograd_makes_of_single_calls(backend, device, examples):
    """Layers that name an engine refuse transforms when they are called. A graph that holds their operators follows
    transforms."""

    @examples
    @given(calls(**SMALL), st.sampled_from(DRAWN), st.booleans(), st.data())
    def check(drawn, transform, many, data):
        ours = function(drawn, backend, device)
        run, count = ours.run if backend == "auto" else _graph(ours), len(ours.leaves)
        by_func, by_autograd = TRANSFORMS[transform]
        by_reference = function(drawn, "reference", device).run

        def expected(given):
            leaves = [tensor.detach().requires_grad_() for tensor in given[:count]]
            return [result.detach() for result in by_autograd(by_reference, (*leaves, *given[count:]), count)]

        given = tuple(tensor.detach() for tensor in (*ours.leaves, *ours.boundaries))
        if not many:
            assert_equal_to(by_func(run, given, count), expected(given))
            return
        each, stacked, dims = _mapped(data.draw, ours, drawn.sizes["steps"])
        found = vmap(lambda *given: tuple(by_func(run, given, count)), dims)(*stacked)
        assert_equal_to(found, [torch.stack(results) for results in zip(*map(expected, each), strict=True)])

    check()


@pytest.mark.parametrize("examples", rounds(10, 100))
@pytest.mark.parametrize("held", (False, True), ids=("called", "held by a graph"))
@pytest.mark.parametrize("backend", ENGINES)
def test_second_gradients(backend, held, device, examples):
    @examples
    @given(calls(**SMALL))
    def check(drawn):
        found = []
        for name in (backend, "reference"):
            own = function(drawn, name, device)
            run = _graph(own) if held and name == backend else own.run
            first = _gradients(_loss(run)(*own.leaves, *own.boundaries), own.leaves, create_graph=True)
            found.append([*first, *gradients(first, own.leaves)])
        assert_equal_to(*found)

    check()
