"""Cells that torch.nn lacks, against their papers' formulas written out in float64, and user-defined cells."""

import pickle

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

import seqcells
from seqcells import cells
from seqcells.call import run
from seqcells.cells import REGISTRY, Cell
from seqcells.cells.activations import sigmoid, tanh
from seqcells.derive.one_stage import one_stage
from seqcells.derive.print_loop import cpp_cells
from seqcells.derive.print_one_stage import triton
from seqcells.derive.transformed_cells import cell_of
from seqcells.request.recurrence import Recurrence
from seqcells.request.weights import Weights

T, B, INPUTS, H = 6, 3, 4, 5


# Each direct form: (a, states) → new states. a(k, h) is the k-th gate's W x + b_ih + U h + b_hh, a(k) the same without
# the recurrent part.


def cifg(a, h, c):
    f = sigmoid(a(0, h))
    c = f * c + (1 - f) * torch.tanh(a(1, h))
    return sigmoid(a(2, h)) * torch.tanh(c), c


def janet(a, h):
    f = sigmoid(a(0, h))
    return (f * h + (1 - f) * torch.tanh(a(1, h)),)


def ligru(a, h):
    z = sigmoid(a(0, h))
    return (z * h + (1 - z) * torch.clamp(a(1, h), min=0),)


def indrnn(a, h):
    return (torch.clamp(a(0) + a.unit * h, min=0),)


def mingru(a, h):
    z = sigmoid(a(0))
    return ((1 - z) * h + z * a(1),)


def jordan(a, y):
    return (a.projection @ torch.tanh(a(0, y)).mT).mT if a.projection is not None else torch.tanh(a(0, y)), None


def slstm(a, h, c, n, _):
    """Without the stabiliser: its states differ from the cell's, but h = o c / n is the same."""
    i, f = torch.exp(a(0, h)), sigmoid(a(1, h))
    c, n = f * c + i * torch.tanh(a(2, h)), f * n + i
    return sigmoid(a(3, h)) * c / n, c, n, None


DIRECT = {
    "CIFG": cifg,
    "JANET": janet,
    "LiGRU": ligru,
    "IndRNN": indrnn,
    "MinGRU": mingru,
    "Jordan": jordan,
    "SLSTM": slstm,
}


class Gates:
    """The parameters of a layer and the input of one step, in the form that direct forms read."""

    def __init__(self, layer, x: Tensor) -> None:
        self.parameters, self.x = dict(layer.named_parameters()), x
        self.unit = self.parameters.get("weight_recurrent_l0", [None])[0]
        self.projection = self.parameters.get("weight_hr_l0")

    def __call__(self, k: int, h: Tensor | None = None) -> Tensor:
        rows = slice(k * H, (k + 1) * H)
        value = self.x @ self.parameters["weight_ih_l0"][rows].mT + self.parameters["bias_ih_l0"][rows]
        if h is None:
            return value
        return value + h @ self.parameters["weight_hh_l0"][rows].mT + self.parameters["bias_hh_l0"][rows]


def make(name: str, **options):
    torch.manual_seed(1)
    layer = getattr(seqcells, name)(INPUTS, H, dtype=torch.float64, **options)
    return layer, torch.randn(T, B, INPUTS, dtype=torch.float64, requires_grad=True)


def directly(name: str, layer, x: Tensor) -> Tensor:
    states = [x.new_zeros(B, H)] * len(layer.cell.states)
    if layer.proj_size:
        states[0] = x.new_zeros(B, layer.proj_size)
    outputs = []
    for step in x:
        new = DIRECT[name](Gates(layer, step), *states)
        states = [*new][: len(states)]
        outputs.append(states[0])
    return torch.stack(outputs)


@pytest.mark.parametrize(("name", "options"), [(name, {}) for name in DIRECT] + [("Jordan", {"proj_size": 2})])
def test_layer_is_the_formula(name, options):
    layer, x = make(name, **options)
    output, expected = layer(x)[0], directly(name, layer, x)
    torch.testing.assert_close(output, expected)
    inputs = [x, *layer.parameters()]
    d = torch.randn_like(output)
    torch.testing.assert_close(torch.autograd.grad(output, inputs, d), torch.autograd.grad(expected, inputs, d))


@pytest.mark.parametrize("name", DIRECT)
def test_cell_module_is_the_layer(name):
    layer, x = make(name)
    cell = getattr(seqcells, name + "Cell")(INPUTS, H, dtype=torch.float64)
    for role, parameter in cell.named_parameters():
        parameter.data = getattr(layer, f"{role}_l0").data
    states = None
    for expected, step in zip(layer(x)[0], x, strict=True):
        states = cell(step, states)
        torch.testing.assert_close(states[0] if len(cell.cell.states) > 1 else states, expected)


@pytest.mark.parametrize("name", DIRECT)
def test_gradcheck(name):
    """Through the output and every final state."""
    layer, x = make(name)
    assert torch.autograd.gradcheck(lambda x: tuple(tree_leaves(layer(x))), x)


def test_cells_have_only_what_they_use():
    names = {name: [n for n, _ in make(name)[0].named_parameters()] for name in DIRECT}
    assert names["IndRNN"] == ["weight_ih_l0", "bias_ih_l0", "weight_recurrent_l0"]
    assert names["MinGRU"] == ["weight_ih_l0", "bias_ih_l0"]
    assert names["Jordan"] == names["CIFG"] == ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"]


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_slstm_is_stable(scale):
    """In float32, from zero states, where the unstabilised form would overflow or divide zero by zero."""
    layer, x = make("SLSTM")
    layer = layer.float()
    layer.weight_ih_l0.data *= scale
    layer.bias_ih_l0.data[:H] -= scale
    output = layer(x.float())[0]
    output.sum().backward()
    assert output.isfinite().all()
    assert all(p.grad.isfinite().all() for p in layer.parameters())
    # The output is a sigmoid times a mean of tanh values.
    assert output.abs().max() <= 1
    # The first step has seen one candidate, so its weight cancels: h = o tanh(z).
    gates = x[0].float() @ layer.weight_ih_l0.mT + layer.bias_ih_l0 + layer.bias_hh_l0
    torch.testing.assert_close(output[0], torch.sigmoid(gates[:, 3 * H :]) * torch.tanh(gates[:, 2 * H : 3 * H]))


# User-defined cells.


class Leaky(Cell):
    """Leaky integrator: each unit keeps a share of its past."""

    name = "leaky"
    gates, states = ("h",), ("h",)
    parameters = {"leak": ("a",)}

    @staticmethod
    def step(x, r, s, p):
        return s.h + p.a * (tanh(x.h + r.h) - s.h)


@pytest.fixture
def defined():
    yield seqcells.define(Leaky)
    del REGISTRY["leaky"]
    cells._REPLACED.pop("leaky", None)


def test_own_cell_runs_at_once(defined):
    layer_class, cell_class = defined
    assert (layer_class.__name__, cell_class.__name__, layer_class.__module__) == ("Leaky", "LeakyCell", __name__)
    torch.manual_seed(0)
    layer = layer_class(INPUTS, H, num_layers=2, bidirectional=True, dtype=torch.float64)
    x = torch.randn(T, B, INPUTS, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: layer(x)[0], x)

    single = layer_class(INPUTS, H, dtype=torch.float64)
    h = x.new_zeros(B, H)
    for step, output in zip(x, single(x)[0], strict=True):
        new = torch.tanh(Gates(single, step)(0, h))
        h = h + single.weight_leak_l0[0] * (new - h)
        torch.testing.assert_close(output, h)


def test_own_cell_trains(defined):
    torch.manual_seed(0)
    layer = defined[0](INPUTS, H)
    x, target = torch.randn(T, B, INPUTS), torch.randn(T, B, H) / 4
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.02)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = (layer(x)[0] - target).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_own_cell_reaches_the_operators_and_the_derivation(defined):
    assert cell_of("leaky") is Leaky
    torch.manual_seed(0)
    weights = Weights(hh=torch.randn(H, H), bias_hh=torch.randn(H), own=(torch.randn(1, H),))
    q = Recurrence(Leaky, torch.randn(T, B, H), [torch.zeros(1, B, H)], (weights,))
    output, (final,) = run.recurrence(q, "reference")
    torch.testing.assert_close(output[-1], final[0])
    made = one_stage(Leaky)
    assert made.fields["saved"] == ("t1",)
    assert "leaky_backward" in triton([made])
    assert "namespace leaky {" in cpp_cells([Leaky])


def test_names_are_not_taken_twice(defined):
    again = type("Leaky", (Leaky,), {"step": Leaky.step, "__module__": __name__})
    seqcells.define(again)  # the same cell, from a notebook's cell that is run again
    assert REGISTRY["leaky"] is again
    other = type("Other", (Leaky,), {"step": Leaky.step})
    with pytest.raises(ValueError, match=r"the name 'leaky' is taken by test_cells\.Leaky"):
        seqcells.define(other)


def redefined(step):
    """The cell defined again with another step, as in a notebook's cell that was edited and run."""
    return type("Leaky", (Leaky,), {"step": staticmethod(step), "__module__": __name__})


def test_what_was_made_before_a_cell_was_defined_again_keeps_its_own(defined):
    """Layers, compiled graphs and exported graphs keep the old equations; everything made later has the new
    equations."""
    x = torch.randn(T, B, INPUTS)
    before = defined[0](INPUTS, H)
    expected = before(x)[0]
    compiled = torch.compile(before, backend="aot_eager", fullgraph=True)
    exported = torch.export.export(before, (x,)).module()
    torch.testing.assert_close(compiled(x)[0], expected)
    later, _ = seqcells.define(redefined(lambda x, r, s, p: s.h + p.a * (sigmoid(x.h + r.h) - s.h)))
    after = later(INPUTS, H)
    after.load_state_dict(before.state_dict())
    assert not torch.allclose(after(x)[0], expected)
    for module in (before, compiled, exported):
        output = module(x)[0]
        torch.testing.assert_close(output, expected)
    output = compiled(x)[0]
    expected_gradients = torch.autograd.grad(before(x)[0].sum(), [*before.parameters()])
    torch.testing.assert_close(torch.autograd.grad(output.sum(), [*before.parameters()]), expected_gradients)
    again = torch.compile(after, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(again(x)[0], after(x)[0])


class LeakyLayer(seqcells.RecurrentLayer):
    """A layer as a user's class."""

    cell = redefined(lambda x, r, s, p: s.h + p.a * (tanh(x.h + r.h) - s.h))


class OneStep(seqcells.RecurrentCell):
    """A cell module as a user's class."""

    cell = LeakyLayer.cell


del REGISTRY["leaky"]  # other tests go through the whole registry


def test_layers_are_classes_of_ones_own(defined):
    """Types, bases and pickling, without `define`."""
    assert REGISTRY["leaky"] is Leaky
    layer, step = LeakyLayer(INPUTS, H, num_layers=2, dropout=0.1), OneStep(INPUTS, H)
    assert repr(layer) == f"LeakyLayer({INPUTS}, {H}, num_layers=2, dropout=0.1)"
    x = torch.randn(T, B, INPUTS)
    assert layer(x)[0].shape == (T, B, H) and step(x[0]).shape == (B, H)
    copied = pickle.loads(pickle.dumps(layer.eval()))
    assert torch.equal(copied(x)[0], layer(x)[0])

    class Deeper(LeakyLayer):
        def forward(self, input, hx=None):
            return super().forward(2 * input, hx)[0]

    assert Deeper(INPUTS, H)(x).shape == (T, B, H)
    with pytest.raises(ValueError, match="proj_size argument is not supported for the leaky cell"):
        LeakyLayer(INPUTS, H, proj_size=2)
    with pytest.raises(ValueError, match=r"the name 'leaky' is taken by test_cells\.Leaky"):
        type("Taken", (seqcells.RecurrentLayer,), {"cell": type("Other", (Leaky,), {"step": Leaky.step})})


OTHERS = {
    "other options": {"options": {"width": 2.0}},
    "no options": {"options": {}},
    "another state": {"states": ("g",)},
    "weights": {"weights": staticmethod(lambda w: {"hh": w.hh - w.hh.mT})},
}


@pytest.mark.parametrize("other", OTHERS)
def test_whatever_a_cell_is_when_it_is_defined_again(other, own_registry):
    """A graph finds its own cell, although newer cells of the name lack its options, states or weights."""

    def made(**declared):
        own = {"name": "again", "gates": ("h",), "states": ("h",), "options": {"depth": 3.0}, **declared}
        own |= {"step": staticmethod(lambda x, r, s, p: tanh(x.h + r.h) + s[0] * 0.5), "__module__": __name__}
        return type("Again", (Cell,), own)

    layer = seqcells.define(made())[0](INPUTS, H, depth=5.0, zoneout={"h": 0.5}).eval()
    x = torch.randn(T, B, INPUTS)
    expected, graph = layer(x)[0], torch.export.export(layer, (x,)).module()
    for _ in range(3):
        seqcells.define(made(**OTHERS[other]))
    torch.testing.assert_close(graph(x)[0], expected)


def test_defined_layers_are_found_by_pickle(own_registry, monkeypatch):
    """Pickle finds them by the names of their variables, which are the cell's name without Step."""
    step = type("TideStep", (Leaky,), {"name": "tide", "__module__": __name__, "step": Leaky.step})
    made = seqcells.define(step)
    assert [kind.__name__ for kind in made] == ["Tide", "TideCell"]
    for kind in made:
        monkeypatch.setitem(globals(), kind.__name__, kind)
        assert isinstance(pickle.loads(pickle.dumps(kind(INPUTS, H))), kind)


WRONG = {
    "gates": ({"gates": "h"}, r"must state its gates as a tuple of names, \('h',\)"),
    "states": ({"states": "hidden"}, r"must state its states as a tuple of names, \('hidden',\)"),
    "rows": ({"parameters": {"leak": "leak"}}, "must state its parameters as a dict of tuples of rows"),
    "parameters": ({"parameters": ("leak",)}, "must state its parameters as a dict of tuples of rows"),
    "name": ({"name": "step with noise"}, "must state a name without brackets, .* and without ' with '"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_misspelled_cell_is_told_how_to_spell(what):
    declared, words = WRONG[what]
    with pytest.raises(TypeError, match=words):
        type("Wrong", (Cell,), {"name": "w", "gates": ("h",), "states": ("h",), "step": Leaky.step, **declared})


@pytest.mark.parametrize("cell", ["gru", seqcells.LSTM, torch.nn.GRU])
def test_what_is_no_cell_is_refused_where_a_layer_is_made_of_it(cell):
    with pytest.raises(TypeError, match=r"cell of Wrong should be a class of seqcells\.cells\.Cell"):
        type("Wrong", (seqcells.RecurrentLayer,), {"cell": cell})


@pytest.mark.usefixtures("own_registry")
def test_a_cell_of_the_library_is_found_by_its_name_alone():
    """A graph with such a cell may be loaded before the cell was imported."""
    cells.REGISTRY.pop("lem", None)
    assert cells.named("lem[dt=0.5]").base is cells.LEM
    with pytest.raises(ValueError, match="unknown cell 'nothing'"):
        cells.named("nothing")
