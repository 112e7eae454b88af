"""Layers and cells of everything that the language can express: streams, sizes, outputs and kept values equal the
equations'."""

import warnings

import pytest
import torch
from every_cell import LAYERS, MODULES, OWN, looped, make, random, registered, states, streams
from programs import B, H, T
from support import as_tuple, heavy_if, like_module, needs_compiler, plain_if
from torch.testing import assert_close
from torch.utils._pytree import tree_leaves

import seqcells
from seqcells import cells, functional
from seqcells.backends import reference
from seqcells.call import operators, run
from seqcells.derive.derivation import derive
from seqcells.derive.expressions import DerivationError
from seqcells.derive.layout import layouts
from seqcells.derive.transformed_cells import for_engines
from seqcells.request.recurrence import Recurrence

__all__ = ["registered"]  # a fixture of every test


def runs_on_the_cpu(cell):
    """Whether the loop of kernels/cpu can run the cell."""
    unset = [option for option, value in cell.options.items() if value is None]
    cell = for_engines(cell.configured(**dict.fromkeys(unset, 2)))
    try:
        return bool(layouts(cell, derive(cell, reset=True, lengths=True)))
    except DerivationError:
        return False


OF_OTHER_KINDS = "scrn", "hyper_lstm", "mixed_sizes", "mass_conserving_lstm"
"""Cells with several sizes, with scalars whose gradients are summed over each size, or with weights made from weights.
The heavy tests compile their kernels; all cells' kernels would take many minutes."""


@needs_compiler
@pytest.mark.heavy
@heavy_if(lambda name, **_: name in OF_OTHER_KINDS)
@pytest.mark.parametrize("form", ["plain", "bounded"])
@pytest.mark.parametrize("name", [name for name in OWN if runs_on_the_cpu(OWN[name])])
def test_every_cell_runs_on_the_cpu(name, form, compiling):
    """The test of `test_every_cell_is_a_layer`, on the CPU engine."""
    assert_as_written(name, form == "bounded", backend="cpu")


@pytest.mark.parametrize("form", ["plain", "bounded"])
@pytest.mark.parametrize("name", OWN)
def test_every_cell_is_a_layer(name, form):
    """Output, final states, kept values, all gradients; bounded: both directions, lengths, resets to given states."""
    assert_as_written(name, form == "bounded")


def assert_as_written(name, bounded, **options):
    layer, cell = make(name, bidirectional=bounded, **options), make(name).cell
    x, hx, given = random(cell, "TB" + cell.streams.get("input", "TBF")[2:]), states(cell, 1 + bounded), streams(cell)
    bounds, fresh = {}, states(cell, 1 + bounded) if bounded else []
    if bounded:
        bounds = {"lengths": torch.tensor([T, 0, 3]), "reset": torch.rand(T, B) < 0.4}
    given_fresh = {"reset_state": like_module(fresh)} if bounded else {}
    output, final, *kept = layer(x, like_module(hx), keep=cell.kept, **bounds, **given_fresh, **given)
    wanted, finals, together = looped(layer, x, hx, given, **bounds, fresh=fresh, keep=cell.kept)
    ours = [output, *as_tuple(final), *(kept[0].values() if kept else ())]
    theirs = [wanted, *finals, *together]
    assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    seeds = [torch.randn_like(each) for each in ours]
    leaves = [x, *hx, *layer.parameters(), *given.values(), *fresh]
    found = [
        torch.autograd.grad(results, leaves, seeds, allow_unused=True, materialize_grads=True)
        for results in (ours, theirs)
    ]
    assert_close(*found, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", OWN)
def test_cell_module_is_the_layer(name):
    layer, module = make(name), make(name, MODULES)
    cell = layer.cell
    module.load_state_dict({key.removesuffix("_l0"): value for key, value in layer.state_dict().items()})
    x, hx, given = random(cell, "TB" + cell.streams.get("input", "TBF")[2:]), states(cell), streams(cell)
    expected, final = layer(x, like_module(hx), **given)
    now = like_module([state[0] for state in hx])
    for t in range(T):
        one = {key: value[t] if "T" in cell.streams[key] else value for key, value in given.items()}
        now = module(x[t], now, **one)
        if cell.output not in ("", *cell.states):
            output, now = now
            assert_close(output, expected[t])
    assert_close([*as_tuple(now)], [state[0] for state in as_tuple(final)])
    alone = {key: value[1] if "B" in cell.streams[key] else value for key, value in one.items()}
    before = [torch.rand_like(state[0]) for state in hx]
    together = module(x[-1], like_module(before), **one)
    found = module(x[-1, 1], like_module([state[1] for state in before]), **alone)
    assert_close([*tree_leaves(found)], [each[1] for each in tree_leaves(together)])


# Sizes.


@needs_compiler
def test_a_cell_module_returns_its_output_at_each_call(compiling):
    """Calls with the same signature are prepared; a prepared call returns states, and the output must be added."""
    module = make("intersection_rnn", MODULES, backend="cpu")
    x = torch.randn(B, module.input_size, dtype=torch.float64)
    with torch.no_grad():
        first, *others = (module(x) for _ in range(4))
    assert len(first) == 2
    for other in others:
        assert_close(other, first)


@pytest.mark.parametrize(
    ("name", "sizes", "layers", "words"),
    [
        ("mut1", (6, H), 1, "the mut1 cell's input is as large as its state: expected 8, got 6"),
        (
            "gru_d",
            (6, H),
            2,
            r"every layer of .* needs 6 input features, because last, mask, elapsed has the size .* got \[6, 8\]",
        ),
        ("tgru", (6, H), 2, r"because last has the size of the input"),
    ],
)
def test_what_does_not_fit_is_told_when_a_layer_is_made(name, sizes, layers, words):
    with pytest.raises(ValueError, match=words):
        LAYERS[name](*sizes, num_layers=layers)
    if layers == 1:
        with pytest.raises(ValueError, match=words):
            MODULES[name](*sizes)


def test_stacks_of_outputs_of_another_size():
    """SCRN's output of four units is the next layer's input; the states have two sizes."""
    layer = make("scrn", num_layers=2)
    output, (h, s) = layer(random(layer.cell, "TBF"))
    assert output.shape == (T, B, 4) and h.shape == (2, B, H) and s.shape == (2, B, 7)
    assert layer.weight_ih_l1.shape == (H, 4) and layer.weight_slow_l1.shape == (7, 4)
    with pytest.raises(RuntimeError, match=r"Expected hidden\[1\] size \(2, 3, 7\), got \[2, 3, 8\]"):
        layer(random(layer.cell, "TBF"), (h, h))
    as_large = LAYERS["tgru"](H, H, num_layers=2)
    assert as_large(torch.randn(T, B, H))[1][1].shape == (2, B, H)


def test_a_cell_must_tell_its_hidden_units():
    cell = type("Untold", (OWN["low_rank_fast_grnn"],), {"states": {"h": "K"}, "name": "untold"})
    with pytest.raises(TypeError, match="needs gates or a state of size H"):
        seqcells.define(cell)[0](6, H, input_rank=2, recurrent_rank=3)
    del cells.REGISTRY["untold"]


def test_shapes_of_the_state_dict():
    shapes = {key: tuple(value.shape) for key, value in make("gru_d").state_dict().items()}
    assert shapes["weight_decay_l0"] == (3, 6) and shapes["weight_fade_l0"] == (H, 6)
    assert not {"weight_ih_l0", "weight_hh_l0", "bias_ih_l0"} & shapes.keys()
    assert {key: tuple(v.shape) for key, v in make("tgru").state_dict().items()}["weight_last_l0"] == (3 * H, 6)


# Step by step, functions, graphs, transforms.


@pytest.mark.parametrize("name", ["zoneout_lstm", "dropout_lstm", "intersection_rnn", "gru_d"])
def test_stream_of_steps(name):
    for batch_first in (False, True):
        layer = make(name, batch_first=batch_first)
        cell = layer.cell
        x, given = random(cell, "TB" + cell.streams.get("input", "TBF")[2:]).detach(), streams(cell)
        turned = {k: v.transpose(0, 1) if batch_first and cell.streams[k][:2] == "TB" else v for k, v in given.items()}
        expected = layer(x.transpose(0, 1) if batch_first else x, **turned)[0]
        stream = layer.stream(B)
        steps = []
        for t in range(T):
            one = {name: value[t] if "T" in cell.streams[name] else value for name, value in given.items()}
            steps.append(stream(x[t], **one).clone())
        assert_close(torch.stack(steps, 1 if batch_first else 0), expected)


def test_functions_take_streams():
    layer = make("phased_lstm")
    (w,), x = layer._weights(), random(layer.cell, "TBF")
    time, hx = random(layer.cell, "TB"), states(layer.cell)
    expected, final = layer(x, tuple(hx), time=time)
    gates_x = torch.nn.functional.linear(x, w.ih, w.bias_ih)
    found = functional.recurrence(layer.cell, gates_x, [s[0] for s in hx], w, streams={"time": time})
    assert_close([found[0], *found[1]], [expected, *(state[0] for state in final)])
    mutant = make("mut1")
    (own,), x = mutant._weights(), random(mutant.cell, "TBH")
    of_input = torch.nn.functional.linear(x, own.ih, own.bias_ih)
    found = functional.recurrence(mutant.cell, of_input, [torch.zeros_like(x[0])], own, streams={"input": x})
    assert_close(found[0], mutant(x)[0])
    with pytest.raises(RuntimeError, match=r"phased_lstm expects streams \['time'\], got \[\]"):
        functional.recurrence(layer.cell, gates_x, [s[0] for s in hx], w)


@plain_if(lambda name: name == "gru_d")
@pytest.mark.parametrize("name", ["gru_d", "dropout_lstm", "clockwork_rnn"])
def test_compiled_and_exported(name):
    layer = make(name)
    cell = layer.cell
    x, given, leaves = random(cell, "TBF"), streams(cell), []
    leaves, found = [x, *given.values(), *layer.parameters()], []
    for called in (layer, torch.compile(layer, fullgraph=True, backend="aot_eager")):
        output = called(x, **given)[0]
        found.append([output, *torch.autograd.grad(output.sum(), leaves, allow_unused=True, materialize_grads=True)])
    assert_close(*found)
    detached = {k: v.detach() for k, v in given.items()}
    program = torch.export.export(layer, (x.detach(),), detached)
    assert_close(program.module()(x.detach(), **detached), layer(x, **given))


@pytest.mark.parametrize("name", ["dropout_lstm", "clockwork_rnn", "softmax_rnn"])
def test_transforms(name):
    """vmap over streams with and without a sequence axis; jvp against the gradient."""
    layer = make(name)
    cell = layer.cell
    x = random(cell, "TBF").detach()
    (stream,) = streams(cell)
    many = torch.stack([random(cell, cell.streams[stream]).detach() for _ in range(2)])

    def run(value):
        return layer(x, **{stream: value})[0]

    assert_close(torch.vmap(run)(many), torch.stack([run(each) for each in many]))
    both = torch.stack([x, x.flip(0)])
    found = torch.vmap(lambda x: layer(x, **{stream: many[0]})[0])(both)
    assert_close(found, torch.stack([layer(each, **{stream: many[0]})[0] for each in both]))
    tangent = torch.randn_like(many[0])
    _, ours = torch.func.jvp(run, (many[0],), (tangent,))
    assert_close(ours.sum(), (torch.func.grad(lambda v: run(v).sum())(many[0]) * tangent).sum())


def test_operators_hold_what_they_promise():
    """torch's own checks of an operator, with streams and kept values: schema, fakes, autograd."""
    layer = make("dropout_lstm", bidirectional=True)
    x, given = random(layer.cell, "TBF"), streams(layer.cell)
    each = {name: value.expand(2, *value.shape) for name, value in given.items()}
    q = Recurrence(
        layer.cell, None, states(layer.cell, 2), layer._weights(), input=x, streams=each, kept=("forget", "c")
    )
    operator = torch.ops.seqcells.recurrence.default
    torch.library.opcheck(operator, (*operators.arguments(q, "reference"), "forget c"))


@pytest.mark.parametrize("way", [run.recurrence, lambda q, backend: operators.recurrence(q, backend)])
def test_what_engines_will_run(way):
    """Streams and kept values through the operators, and through the shorter path of eager calls: first and second
    gradients."""
    layer = make("softmax_rnn", bidirectional=True)
    x, (elapsed,), hx = random(layer.cell, "TBF"), streams(layer.cell).values(), states(layer.cell, 2)
    given = {"elapsed": elapsed.expand(2, -1, -1)}
    q = Recurrence(layer.cell, None, hx, layer._weights(), input=x, streams=given, kept=("attention", "faded"))
    found, leaves = [], [x, elapsed, *hx, *layer.parameters()]
    for by in (way, lambda q, _: reference.layer(q)):
        output, (final, attention, faded) = by(q, "reference")
        total = output.sum() + (attention.square() * faded).sum() + final.square().sum()
        first = torch.autograd.grad(total, leaves, create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), leaves, allow_unused=True)
        found.append([output, final, attention, faded, *first, *(g for g in second if g is not None)])
    assert_close(*found, rtol=1e-9, atol=1e-11)


class Timed(torch.nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x, elapsed):
        return self.layer(x, elapsed=elapsed)[0]


def test_exported_for_any_number_of_steps():
    model = Timed(make("continuous_time_rnn"))
    x, elapsed = random(model.layer.cell, "TBF").detach(), random(model.layer.cell, "TB").detach()
    steps = torch.export.Dim("steps", min=2)
    program = torch.export.export(model, (x, elapsed), dynamic_shapes=({0: steps}, {0: steps}))
    longer = [torch.cat([each, each]) for each in (x, elapsed)]
    assert_close(program.module()(*longer), model(*longer))
    assert_close(torch.fx.symbolic_trace(model)(*longer), model(*longer))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(model, (x, elapsed))
    assert_close(traced(x + 1, elapsed), model(x + 1, elapsed))


def test_under_autocast():
    layer = make("phased_lstm").float()
    x, time = torch.rand(T, B, 6), torch.rand(T, B)
    exact = layer(x, time=time)[0]
    with torch.autocast("cpu", torch.bfloat16):
        output = layer(x, time=time)[0]
    assert output.dtype == torch.bfloat16
    assert_close(output.float(), exact, atol=0.05, rtol=0.05)


def test_why_no_kernels():
    layer = make("phased_lstm")
    assert layer.plan(random(layer.cell, "TBF")).backend == "reference"
    assert "phased_lstm" in layer.plan(random(layer.cell, "TBF")).reason
    layer.backend = "cpu"
    with pytest.raises(RuntimeError, match=r"backend='cpu' cannot run this call: .*phased_lstm"):
        layer(random(layer.cell, "TBF"), time=random(layer.cell, "TB"))
