"""The loop of kernels/cpu runs any printed program, forward and backward, like the reference."""

import math

import pytest
import torch
from support import distance, needs_compiler
from torch.utils._pytree import tree_flatten

import seqcells
from seqcells import cells
from seqcells.backends import reference
from seqcells.call import execute
from seqcells.cells import REGISTRY
from seqcells.cells.activations import sigmoid, tanh, where
from seqcells.kernels import cpu
from seqcells.request.recurrence import Backward, Recurrence
from seqcells.request.weights import Weights

if not cpu.why_not_available():
    from seqcells.kernels.cpu import engine, library

OTHERS = (
    cells.GRUResetBefore,
    cells.LayerNormLSTM,
    cells.LayerNormGRU,
    cells.MGU,
    cells.MultiplicativeLSTM,
    cells.RecurrentHighway,
    cells.BlockGRU.configured(heads=4),
    cells.MultiHeadSLSTM.configured(heads=2),
)
CELLS = REGISTRY | {cell.name: cell for cell in OTHERS}
PLAIN = "gru_reset_before"
SINGLE = PLAIN, "lstm", "layer_norm_gru"
"""Cells tested in float32 and bfloat16, each of another kind; compiling all cells takes many minutes."""
SIZES = {"odd": (5, 3, 20), "one": (1, 1, 8), "many": (4, 30, 40)}
WHEN = {"": (False, False), "lengths": (True, False), "resets": (False, True), "both": (True, True)}

pytestmark = [needs_compiler, pytest.mark.usefixtures("compiling")]

every_cell = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == PLAIN else pytest.mark.heavy) for name in CELLS]
)


def best():
    """The instruction set in use; compiling for all sets takes many minutes."""
    return [] if cpu.why_not_available() else library.TARGETS[:1]


def problem(name, size, lengths, resets, reverse, dtype=torch.float64):
    """A recurrence of random tensors, in one direction."""
    cell, (steps, batch, hidden) = CELLS[name], SIZES[size]
    generator = torch.Generator().manual_seed(steps)

    def randn(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    def states():
        made = [randn(1, batch, hidden) for _ in cell.states]
        return [state.abs() + 0.5 if key == "n" else state for key, state in zip(cell.states, made, strict=True)]

    roles = Weights.roles(cell, True, False)
    weights = Weights.of(roles, [randn(*Weights.shape(role, cell, 1, hidden, 0)) / hidden**0.5 for role in roles])
    q = Recurrence(cell, randn(steps, batch, len(cell.gates) * hidden), states(), (weights.recurrent,), reverse=reverse)
    if lengths:
        q = q._replace(lengths=torch.randint(0, steps + 1, (batch,), generator=generator))
    if resets:
        q = q._replace(reset=torch.rand(steps, batch, generator=generator) < 0.3, reset_states=states())
    return q


def seeds(q):
    generator = torch.Generator().manual_seed(7)
    made = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in q.shapes()]
    return [each.to(q.gates_x.dtype) for each in made]


def by_reference(q):
    """Output, final states and all gradients, by the reference."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in q.differentiable()]
    output, final = reference.layer(q.replaced(leaves))
    grads = torch.autograd.grad([output, *final], leaves, seeds(q), materialize_grads=True)
    return [tensor.detach() for tensor in (output, *final, *grads)]


def by_loop(q):
    """Output, final states and all gradients, by the loop."""
    output, final, saved = engine.forward(q, True)
    wanted = q.replaced([True] * len(q.differentiable()))
    grad_output, *grad_final = seeds(q)
    grads = engine.backward(q, Backward(output, saved, grad_output, grad_final, wanted))
    return [output, *final, *grads]


@every_cell
@pytest.mark.heavy_if(lambda target, **_: target in best())
@pytest.mark.plain_if(lambda target, **_: target in best())
def test_as_the_reference(name, target, threads):
    for size in SIZES:
        for lengths, resets in WHEN.values():
            for reverse in (False, True):
                threads(1 + reverse)
                q = problem(name, size, lengths, resets, reverse)
                for place, (found, truth) in enumerate(zip(by_loop(q), by_reference(q), strict=True)):
                    error = ((found - truth).abs() / truth.abs().clamp_min(1)).max().item()
                    assert error <= 1e-11, (size, lengths, resets, reverse, place, error)


@every_cell
def test_the_input_may_be_projected_inside(name):
    for size in SIZES:
        q = problem(name, size, True, True, True)
        features = len(q.cell.gates) * q.hidden
        weights = q.weights[0]._replace(ih=torch.randn(features, 5).double(), bias_ih=torch.randn(features).double())
        q = q._replace(gates_x=None, input=torch.randn(*q.gates_x.shape[:2], 5).double(), weights=(weights,))
        output, final, _ = engine.forward(q, False)
        judged = reference.layer(execute.projected(q))
        for found, truth in zip((output, *final), (judged[0], *judged[1]), strict=True):
            assert ((found - truth).abs() / truth.abs().clamp_min(1)).max() <= 1e-11


@every_cell
@pytest.mark.parametrize("when", WHEN)
def test_same_bits_for_any_number_of_threads(name, when, threads):
    threads(1)
    q = problem(name, "many", *WHEN[when], False)
    alone = by_loop(q)
    for count in (2, 3, 5):
        threads(count)
        assert all(map(torch.equal, by_loop(q), alone))


@pytest.mark.heavy
@pytest.mark.heavy_if(lambda target, dtype, name: target in best() and dtype != torch.float16 and name in SINGLE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", CELLS)
def test_as_near_to_float64_as_the_reference(name, dtype, target):
    q = problem(name, "many", True, True, False, dtype)
    wide = q.replaced([tensor.double() for tensor in q.differentiable()])
    for place, (found, judged, truth) in enumerate(zip(by_loop(q), by_reference(q), by_reference(wide), strict=True)):
        least = 4 * torch.finfo(dtype).eps
        assert distance(found, truth) <= 2 * distance(judged, truth) + least, place


# Values that a step reads besides the gates, and values that it leaves besides the output.


class Streamed(cells.Cell):
    """A cell with a stream of each kind."""

    name = "streamed_of_the_tests"
    gates = ("a", "b")
    states = ("h",)
    streams = {"mask": "BH", "zone": "TBH", "elapsed": "TB", "age": "B", "gain": "H", "input": "TBH"}

    @staticmethod
    def step(x, r, s, p):
        z = sigmoid(x.a + r.a * x.mask)
        n = tanh(x.b * x.elapsed + r.b * x.age + x.gain) + x.input
        return x.zone * (z * s.h + (1 - z) * n) + (1 - x.zone) * s.h


def with_streams(dtype=torch.float64):
    sizes = {"T": 5, "B": 3, "H": 12}
    shapes = {name: [sizes[axis] for axis in axes] for name, axes in Streamed.streams.items() if name != "input"}
    return {name: torch.rand(shape, dtype=dtype) for name, shape in shapes.items()}


def by_layer(kind, backend, x, streams, boundaries, keep, **options):
    """All results of a layer, and the gradients of the input, the parameters and the streams."""
    torch.manual_seed(0)
    layer = kind(x.shape[2], 12, backend=backend, dtype=x.dtype, **options)
    leaves = [tensor.clone().requires_grad_() for tensor in (x, *streams.values())]
    kept = {"keep": keep} if keep else {}
    found = layer(leaves[0], **dict(zip(streams, leaves[1:], strict=True)), **boundaries, **kept)
    results = tree_flatten(found)[0]
    torch.autograd.backward(results, [torch.rand_like(result) for result in results])
    return [*results, *(leaf.grad for leaf in [*leaves, *layer.parameters()])]


def assert_as_the_reference(*arguments, **options):
    found, truth = (by_layer(arguments[0], backend, *arguments[1:], **options) for backend in ("cpu", "reference"))
    for ours, theirs in zip(found, truth, strict=True):
        assert ((ours - theirs).abs() / theirs.abs().clamp_min(1)).max() <= 1e-11


class Timed(cells.Cell):
    """A cell whose stream is one number a step for all sequences."""

    name, gates, states, streams = "timed_of_the_tests", ("a",), ("h",), {"elapsed": "T"}

    @staticmethod
    def step(x, r, s, p):
        return tanh(x.a + r.a * x.elapsed)


def test_streams_that_all_sequences_share(compiling):
    """Each sequence gets its own copy; the gradients of the copies are summed."""
    layer, _ = seqcells.define(Timed)
    x, elapsed = torch.randn(5, 3, 7, dtype=torch.float64), torch.rand(5, dtype=torch.float64, requires_grad=True)
    ours, expected = (layer(7, 12, dtype=torch.float64, backend=backend) for backend in ("cpu", "reference"))
    expected.load_state_dict(ours.state_dict())
    results = []
    for module in (ours, expected):
        output = module(x, elapsed=elapsed, lengths=torch.tensor([5, 2, 0]))[0]
        results.append([output, *torch.autograd.grad(output.square().sum(), [elapsed, *module.parameters()])])
    torch.testing.assert_close(*results)


class Masking(cells.Cell):
    """A cell with infinite constants, and with a constant that is computed from another one."""

    name, gates, states, options = "masking_of_the_tests", ("a", "b"), ("h",), {"share": 0.25}

    @staticmethod
    def step(x, r, s, p):
        masked = where(x.b > 0.5, -math.inf, x.a + r.a)
        return (1 - p.share) * tanh(masked) + (1 - (1 - p.share)) * s.h * sigmoid(r.b)


@needs_compiler
def test_numbers_that_are_not_finite(compiling):
    layer, _ = seqcells.define(Masking)
    x = torch.randn(5, 3, 7, dtype=torch.float64)
    ours, expected = (layer(7, 12, dtype=torch.float64, backend=backend) for backend in ("cpu", "reference"))
    expected.load_state_dict(ours.state_dict())
    torch.testing.assert_close(ours(x)[0], expected(x)[0])


BOUNDARIES = {
    "": {},
    "lengths": {"lengths": torch.tensor([5, 0, 3])},
    "resets": {"reset": torch.tensor([[0, 1, 0], [1, 0, 0], [0, 0, 0], [0, 1, 1], [0, 0, 1]], dtype=torch.bool)},
}


@pytest.mark.parametrize("keep", [(), pytest.param(("z", "h"), marks=pytest.mark.heavy)], ids=str)
@pytest.mark.parametrize(
    "when", [pytest.param(name, marks=() if name == "lengths" else pytest.mark.heavy) for name in BOUNDARIES]
)
def test_streams(when, keep):
    layer, _ = seqcells.define(Streamed)
    x, streams = torch.randn(5, 3, 12, dtype=torch.float64), with_streams()
    for options in ({}, {"num_layers": 2}, {"bidirectional": True}):
        assert_as_the_reference(layer, x, streams, BOUNDARIES[when], keep, **options)


@pytest.mark.parametrize(
    ("cell", "keep"),
    [
        pytest.param("gru", ("r",), marks=pytest.mark.heavy),
        pytest.param("lstm", ("f", "c_l0"), marks=pytest.mark.heavy),
        pytest.param("layer_norm_lstm", ("c",), marks=pytest.mark.heavy),
    ],
    ids=str,
)
@pytest.mark.parametrize("when", BOUNDARIES)
def test_what_is_kept(cell, keep, when):
    kinds = {"gru": seqcells.GRU, "lstm": seqcells.LSTM}
    kind = kinds.get(cell) or seqcells.define(CELLS[cell])[0]
    x = torch.randn(5, 3, 7, dtype=torch.float64)
    for options in ({}, {"num_layers": 2, "bidirectional": True}):
        assert_as_the_reference(kind, x, {}, BOUNDARIES[when], keep, **options)


@pytest.mark.heavy
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_streams_of_other_dtypes(dtype):
    layer, _ = seqcells.define(Streamed)
    x, streams = torch.randn(5, 3, 12, dtype=dtype), with_streams(dtype)
    q, wide = (
        Recurrence(
            Streamed,
            torch.randn(5, 3, 24, generator=torch.Generator().manual_seed(1)).to(dtype).to(kind),
            [torch.zeros(1, 3, 12, dtype=kind)],
            (Weights(hh=layer(12, 12).weight_hh_l0.detach().to(dtype).to(kind)),),
            streams={name: stream.to(kind).unsqueeze(0) for name, stream in {**streams, "input": x}.items()},
            kept=("z",),
        )
        for kind in (dtype, torch.float64)
    )
    q, wide = (each._replace(streams={name: each.streams[name] for name in Streamed.streams}) for each in (q, wide))
    wide = wide._replace(weights=tuple(w.replaced([t.double() for t in w.present()]) for w in q.weights))
    for found, judged, truth in zip(by_loop(q), by_reference(q), by_reference(wide), strict=True):
        assert found.dtype == dtype
        assert distance(found, truth) <= 2 * distance(judged, truth) + 4 * torch.finfo(dtype).eps
