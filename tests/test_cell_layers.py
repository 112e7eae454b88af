"""Layers of cells with more than one product a step, against their equations written out."""

from functools import partial

import pytest
import torch
from support import plain_if
from torch import nn
from torch.autograd import gradgradcheck
from torch.testing import assert_close
from written_out import (
    CELLS,
    DIRECT,
    HEADS,
    IN,
    LAYERS,
    MODULES,
    OPTIONS,
    H,
    N,
    T,
    directly,
    in_registry,
    make,
)

import seqcells
from seqcells.cells import REGISTRY, Cell
from seqcells.cells.activations import sigmoid, tanh


@pytest.fixture(autouse=True)
def registered():
    with in_registry():
        yield


@pytest.mark.parametrize("form", ["plain", "bounded", "no bias"])
@pytest.mark.parametrize("name", DIRECT)
def test_layer_is_the_equations(name, form):
    """Output, final states and all gradients; bounded: two layers in both directions, with resets and lengths."""
    options = {"plain": {}, "bounded": {"num_layers": 2, "bidirectional": True}, "no bias": {"bias": False}}[form]
    layer = make(name, **options)
    x = torch.randn(T, N, IN, dtype=torch.float64, requires_grad=True)
    paths = layer.num_layers * (1 + layer.bidirectional)
    hx = [torch.randn(paths, N, H, dtype=torch.float64, requires_grad=True) for _ in layer.cell.states]
    if name == "multi_head_slstm":  # its stabiliser is no state of the direct form
        hx = [torch.zeros(paths, N, H, dtype=torch.float64, requires_grad=True) for _ in hx]
    bounds, lengths, reset = {}, [T] * N, torch.zeros(T, N, dtype=torch.bool)
    if form == "bounded":
        lengths, reset = [4, 0, 3] if name != "multi_head_slstm" else [4, 1, 3], torch.rand(T, N) < 0.4
        bounds = {"lengths": torch.tensor(lengths), "reset": reset}
    output, final = layer(x, hx[0] if len(hx) == 1 else tuple(hx), **bounds)
    final = [final] if isinstance(final, torch.Tensor) else [*final]
    wanted, wanted_final = directly(name, layer, x, hx, lengths, reset)
    if name == "multi_head_slstm":
        final, wanted_final, hx = final[:1], wanted_final[:1], []
    assert_close([output, *final], [wanted, *wanted_final], rtol=1e-10, atol=1e-12)
    seeds = [torch.randn_like(each) for each in (output, *final)]
    inputs = [x, *hx, *layer.parameters()]
    ours, theirs = (
        torch.autograd.grad(results, inputs, seeds, materialize_grads=True, allow_unused=True)
        for results in ([output, *final], [wanted, *wanted_final])
    )
    assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", [cell.name for cell in CELLS])
def test_cell_module_is_the_layer(name):
    layer = make(name)
    module = MODULES[name](IN, H, dtype=torch.float64, **OPTIONS.get(name, {}))
    module.load_state_dict({key.removesuffix("_l0"): value for key, value in layer.state_dict().items()})
    x, states = torch.randn(T, N, IN, dtype=torch.float64), None
    for step, expected in zip(x, layer(x)[0], strict=True):
        states = module(step, states)
        assert_close(states if isinstance(states, torch.Tensor) else states[0], expected)


GATES = ["weight_ih", "weight_hh", "bias_ih", "bias_hh"]
SHAPES = {
    "gru_reset_before": {"weight_hh": (2 * H, H), "weight_candidate": (H, H), "bias_candidate": (H,)},
    "layer_norm_lstm": {
        "weight_hh": (4 * H, H),
        "weight_norm_x": (4, H),
        "weight_norm_h": (4, H),
        "weight_norm_bias": (4, H),
        "weight_norm_c": (2, H),
    },
    "layer_norm_gru": {
        "weight_hh": (3 * H, H),
        "weight_norm_x": (3, H),
        "weight_norm_h": (3, H),
        "weight_norm_bias": (4, H),
    },
    "mgu": {"weight_hh": (H, H), "weight_candidate": (H, H), "bias_candidate": (H,)},
    "multiplicative_lstm": {"weight_hh": (H, H), "weight_intermediate": (4 * H, H), "bias_intermediate": (4 * H,)},
    "recurrent_highway": {
        "weight_hh": (2 * H, H),
        "weight_deeper1": (2 * H, H),
        "bias_deeper1": (2 * H,),
        "weight_deeper2": (2 * H, H),
        "bias_deeper2": (2 * H,),
    },
    "block_gru": {"weight_hh": (3 * H, H // HEADS), "weight_norm": (3, H), "weight_norm_bias": (3, H)},
    "multi_head_slstm": {"weight_hh": (4 * H, H // HEADS)},
}


@pytest.mark.parametrize("name", SHAPES)
def test_state_dict(name):
    shapes = {key: tuple(value.shape) for key, value in make(name, bidirectional=True).state_dict().items()}
    expected = [*GATES, *(key for key in SHAPES[name] if key not in GATES)]
    assert [*shapes] == [f"{key}_l0{suffix}" for suffix in ("", "_reverse") for key in expected]
    assert {key: shapes[f"{key}_l0_reverse"] for key in SHAPES[name]} == SHAPES[name]
    without = {key.removesuffix("_l0") for key in make(name, bias=False).state_dict()}
    assert without == {key for key in expected if not key.startswith("bias")}


# Initial values.


def test_norms_begin_as_torchs_do_and_all_else_as_ever():
    torch.manual_seed(3)
    ours = LAYERS["layer_norm_lstm"](IN, H)
    torch.manual_seed(3)
    theirs = nn.LSTM(IN, H)
    for name, parameter in theirs.named_parameters():
        assert torch.equal(getattr(ours, name), parameter)
    for name in ("norm_x", "norm_h"):
        assert torch.equal(getattr(ours, f"weight_{name}_l0"), torch.ones(4, H))
    assert torch.equal(ours.weight_norm_bias_l0, torch.zeros(4, H))
    assert torch.equal(ours.weight_norm_c_l0, torch.stack([torch.ones(H), torch.zeros(H)]))
    ours.weight_norm_x_l0.data.fill_(5)
    ours.reset_parameters()
    assert torch.equal(ours.weight_norm_x_l0, torch.ones(4, H))


def test_numbers_and_biases_begin_where_the_cell_says():
    class Begins(Cell):
        name, gates, states = "begins", ("a", "f"), ("h",)
        parameters, scalars = {"u": ("v", "w")}, ("drawn", "set")
        products = {"m": ("b", "c")}
        initial = {"w": 2.0, "bias_ih.f": 1.0, "bias_m.c": -3.0, "set": 7.0}

        @staticmethod
        def step(x, r, s, p):
            m = p.m(s.h)
            return tanh(x.a + r.a + m.b) * p.v + sigmoid(x.f + r.f + m.c) * p.w * s.h + p.drawn + p.set

    layers = seqcells.define(Begins)
    del REGISTRY["begins"]
    for module, end in zip((layers[0](IN, H), layers[1](IN, H)), ("_l0", ""), strict=True):
        at = {name.removesuffix(end): p.detach() for name, p in module.named_parameters()}
        assert torch.equal(at["weight_u"][1], torch.full((H,), 2.0))
        assert torch.equal(at["bias_ih"][H:], torch.ones(H))
        assert torch.equal(at["bias_m"][H:], torch.full((H,), -3.0))
        assert at["weight_set"].item() == 7 and at["weight_drawn"].shape == (1,)
        drawn = torch.cat([at["weight_u"][0], at["bias_ih"][:H], at["bias_m"][:H], at["bias_hh"], at["weight_drawn"]])
        assert drawn.abs().max() <= H**-0.5 and drawn.unique().numel() == drawn.numel()
    without = layers[0](IN, H, bias=False)
    assert without.weight_set_l0.item() == 7


# Second gradients, transforms, graphs.


@plain_if(lambda name: name == "gru_reset_before")
@pytest.mark.parametrize("name", ["gru_reset_before", "uneven"])
def test_second_gradients(name):
    layer = make(name)
    x = torch.randn(2, 1, IN, dtype=torch.float64, requires_grad=True)
    names, parameters = zip(*layer.named_parameters(), strict=True)

    def run(x, *parameters):
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (x,))[0]

    assert gradgradcheck(run, (x, *parameters))


@pytest.mark.parametrize("name", ["block_gru", "layer_norm_gru", "antisymmetric_rnn"])
def test_transforms(name):
    """Gradients of single samples by vmap, and jvp against the gradient."""
    layer = make(name)
    parameters, x = dict(layer.named_parameters()), torch.randn(N, T, IN, dtype=torch.float64)

    def loss(parameters, one):
        return torch.func.functional_call(layer, parameters, (one,))[0].square().sum()

    each = torch.func.vmap(torch.func.grad(loss), (None, 0))(parameters, x)
    for n, one in enumerate(x):
        expected = torch.autograd.grad(loss(parameters, one), [*parameters.values()])
        assert_close([each[key][n] for key in parameters], [*expected])
    tangent = torch.randn_like(x[0])
    _, ours = torch.func.jvp(partial(loss, parameters), (x[0],), (tangent,))
    assert_close(ours, (torch.func.grad(loss, argnums=1)(parameters, x[0]) * tangent).sum())


@plain_if(lambda name: name == "recurrent_highway")
@pytest.mark.parametrize("name", ["recurrent_highway", "antisymmetric_rnn"])
def test_compiled(name):
    options = {"depth": 2} if name == "recurrent_highway" else {}
    layer = LAYERS[name](IN, H, bidirectional=True, dtype=torch.float64, **options)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    x = torch.randn(T, N, IN, dtype=torch.float64, requires_grad=True)
    results = [
        [output, *torch.autograd.grad(output.sum(), [x, *layer.parameters()])]
        for output in (compiled(x)[0], layer(x)[0])
    ]
    assert_close(*results)


def test_stream():
    layer = make("recurrent_highway", num_layers=2)
    x = torch.randn(T, N, IN, dtype=torch.float64)
    stream = layer.stream(N)
    assert_close(torch.stack([stream(step).clone() for step in x]), layer(x)[0])
