"""Cells that read streams, or make weights from weights: their calls are prepared too, and give the results of the
first call."""

import pytest
import torch
from support import as_tuple, assert_equal_to, like_module, needs_compiler, plain_if
from torch.testing import assert_close

import seqcells
from seqcells import cells
from seqcells.cells import LIBRARY, Cell
from seqcells.cells.activations import sigmoid, tanh
from seqcells.request.streams import names

pytestmark = [needs_compiler, pytest.mark.usefixtures("own_registry", "compiling")]

T, N, F, H, TIMES = 4, 3, 5, 6, 5
KIND = {"dtype": torch.float64}
UNREAD = {"allow_unused": True, "materialize_grads": True}
"""Needed because some cells do not read a state."""
DEEP = {"num_layers": 2, "bidirectional": True}
ALONE = "MemoryBlockLSTM"
"""A cell that only the reference runs."""
EVERY = {name: getattr(cells, name) for name in LIBRARY if name != ALONE}
NAMES = [name for name, cell in EVERY.items() if cell.streams or cell.weights is not Cell.weights]
PLAIN = ("GRUD", "GRUDecay", "GatedAntisymmetricRNN", "IntersectionRNN")
"""A cell without gates, a cell with a stream that the call gives, a cell that makes a weight. The last cell reads its
input again."""


def problem(name, batch_first=False, deep=False):
    """A layer, its input, states and streams."""
    torch.manual_seed(2)
    cell = getattr(cells, name)
    sizes = {option: 3 for option, value in cell.options.items() if value is None}
    features = H if cell.streams.get("input") == "TBH" else F
    options = DEEP if deep and features != H and "last" not in cell.states else {"num_layers": 1 + deep}
    if "last" in cell.states or cell.streams.get("mask"):
        features, options = H, {"bidirectional": deep}
    layer = seqcells.define(cell)[0](features, H, batch_first=batch_first, backend="cpu", **sizes, **options, **KIND)
    shape = (N, T) if batch_first else (T, N)
    letters = layer.cell.sizes_by_letter(H) | {"F": features}
    paths = layer.num_layers * (2 if layer.bidirectional else 1)
    states = [torch.randn(paths, N, letters[letter], **KIND) for letter in layer.cell.state_sizes.values()]
    streams = {n: torch.rand(*shape, *(letters[a] for a in cell.streams[n][2:]), **KIND) for n in names(cell)}
    return layer, torch.randn(*shape, features, **KIND), states, streams


def everything(layer, input, states, streams, gradients=True):
    """Outputs, final states and, with ``gradients``, the gradients of input, states and parameters."""
    input, states = input.detach().clone(), [state.detach().clone() for state in states]
    leaves = [input, *states]
    for leaf in leaves if gradients else ():
        leaf.requires_grad_()
    with torch.set_grad_enabled(gradients):
        output, final = layer(input, like_module(states), **streams)
    found = [output, *as_tuple(final)]
    if not gradients:
        return found
    total = sum((v * torch.arange(v.numel(), **KIND).view(v.shape).cos()).sum() for v in found)
    return [*found, *torch.autograd.grad(total, [*leaves, *layer.parameters()], **UNREAD)]


@plain_if(lambda name, **_: name in PLAIN)
@pytest.mark.parametrize("deep", [False, True], ids=["", "deep"])
@pytest.mark.parametrize("batch_first", [False, True], ids=["", "batch_first"])
@pytest.mark.parametrize("name", NAMES)
def test_calls_are_prepared_and_alike(name, batch_first, deep):
    layer, *rest = problem(name, batch_first, deep)
    for gradients in (False, True):
        first, *others = [everything(layer, *rest, gradients) for _ in range(TIMES)]
        assert layer._prepared.has(gradients)
        for found in others:
            assert_equal_to(found, first, 0)
        layer.backend = "reference"
        assert_close(others[-1], everything(layer, *rest, gradients))
        layer.backend = "cpu"


@pytest.fixture
def timed():
    layer, input, states, streams = problem("GRUDecay")
    for _ in range(TIMES):
        everything(layer, input, states, streams)
        everything(layer, input, states, streams, gradients=False)
    return layer, input, states, streams


def expected(layer, *rest, gradients=True):
    layer.backend = "reference"
    found = everything(layer, *rest, gradients)
    layer.backend = "cpu"
    return found


def test_other_values_count_at_once(timed):
    layer, input, states, streams = timed
    with torch.no_grad():
        streams["elapsed"].mul_(3)
        layer.weight_decayed_l0.add_(0.1)
    for given in (streams, {"elapsed": streams["elapsed"].clone()}):
        assert_close(everything(layer, input, states, given), expected(layer, input, states, given))


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v.requires_grad_(),
        lambda v: v.float().round().bool(),
        lambda v: v.T.contiguous().T,
        lambda v: v.expand(1, T, N),
    ],
    ids=["differentiable", "truths", "strides", "of paths"],
)
def test_a_stream_of_another_kind_goes_the_whole_way(timed, change):
    layer, input, states, streams = timed
    given = {"elapsed": change(streams["elapsed"].clone())}
    for _ in range(TIMES):
        assert_close(everything(layer, input, states, given), expected(layer, input, states, given))
        if given["elapsed"].requires_grad:
            found = []
            for layer.backend in ("reference", "cpu"):
                total = layer(input, like_module(states), **given)[0].square().sum()
                found += torch.autograd.grad(total, given["elapsed"])
            assert_close(*found)


def test_what_is_wrong_is_told_as_ever(timed):
    layer, input, states, streams = timed
    for wrong, error, words in (
        ({}, TypeError, "missing a required keyword argument: 'elapsed'"),
        ({"time": streams["elapsed"]}, TypeError, "got an unexpected keyword argument 'time'"),
        ({"elapsed": streams["elapsed"][1:]}, RuntimeError, "Expected elapsed of size"),
        ({"elapsed": streams["elapsed"].float()}, RuntimeError, "are not the same dtype"),
    ):
        for _ in range(2):
            with pytest.raises(error, match=words):
                layer(input, like_module(states), **wrong)


class Mixed(Cell):
    """An invented cell with streams of several kinds."""

    name, gates, states = "mixed_streams", ("a", "b"), ("h",)
    streams = {"scale": "BH", "time": "TB", "mask": "TBH"}

    @staticmethod
    def step(x, r, s, p):
        return s.h + x.time * x.mask * (tanh(x.a + x.scale * r.a) - sigmoid(x.b + r.b) * s.h)


@pytest.mark.parametrize("batch_first", [False, True], ids=["", "batch_first"])
def test_streams_of_several_kinds_in_any_order(batch_first):
    """Training is not prepared if a stream has no time axis; inference is."""
    torch.manual_seed(3)
    layer = seqcells.define(Mixed)[0](F, H, 2, batch_first=batch_first, backend="cpu", **KIND)
    shape = (N, T) if batch_first else (T, N)
    streams = {
        "mask": torch.rand(*shape, H, **KIND),
        "time": torch.rand(*shape, **KIND),
        "scale": torch.rand(N, H, **KIND),
    }
    input, states = torch.randn(*shape, F, **KIND), [torch.randn(2, N, H, **KIND)]
    for gradients in (False, True):
        for _ in range(TIMES):
            found = everything(layer, input, states, streams, gradients)
            assert_close(found, expected(layer, input, states, streams, gradients=gradients))
        assert layer._prepared.has(gradients) != gradients


def test_the_order_of_arguments_does_not_matter():
    layer, input, states, streams = problem("GRUD")
    for _ in range(TIMES):
        first = everything(layer, input, states, streams)
        second = everything(layer, input, states, dict(reversed(streams.items())))
        assert_equal_to(second, first, 0)
    assert_close(first, expected(layer, input, states, streams))


@pytest.mark.parametrize("batch_first", [False, True], ids=["", "batch_first"])
def test_gradients_of_gradients(batch_first):
    layer, input, states, streams = problem("GRUDecay", batch_first)
    for _ in range(TIMES):
        everything(layer, input, states, streams)

    def second(backend):
        layer.backend = backend
        x = input.clone().requires_grad_()
        (first,) = torch.autograd.grad(layer(x, like_module(states), **streams)[0].square().sum(), x, create_graph=True)
        return torch.autograd.grad(first.square().sum(), [x, *layer.parameters()])

    assert_close(second("cpu"), second("reference"))


def test_some_gradients_alone(timed):
    """The input's gradient alone, with frozen weights."""
    layer, input, states, streams = timed
    layer.requires_grad_(False)
    for _ in range(TIMES):
        x = input.clone().requires_grad_()
        found = layer(x, like_module(states), **streams)[0]
        (of_x,) = torch.autograd.grad(found.sum(), x)
    layer.backend = "reference"
    assert_close(of_x, torch.autograd.grad(layer(x, like_module(states), **streams)[0].sum(), x)[0])
