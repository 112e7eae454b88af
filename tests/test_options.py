"""The options of a cell in its modules."""

import copy
import pickle

import pytest
import torch
from torch.testing import assert_close
from written_out import IN, LAYERS, MODULES, OWN, H, N, RecurrentHighway, RecurrentHighwayCell, T, in_registry

import seqcells
from seqcells import cells, functional
from seqcells.call.graph_cells import program
from seqcells.cells import REGISTRY, Cell, units
from seqcells.cells.activations import relu, tanh
from seqcells.derive.transformed_cells import cell_of
from seqcells.request.weights import Weights

EchoState = LAYERS["echo_state"]


@pytest.fixture(autouse=True)
def registered():
    with in_registry():
        yield


def test_options_are_the_constructors():
    layer = RecurrentHighway(IN, H, depth=2, num_layers=2)
    assert repr(layer) == f"RecurrentHighway({IN}, {H}, num_layers=2, depth=2)"
    assert layer.cell is cells.RecurrentHighway.configured(depth=2)
    assert layer.mode == "RECURRENT_HIGHWAY"
    assert "weight_deeper1_l1" in layer.state_dict() and "weight_deeper2_l0" not in layer.state_dict()
    assert RecurrentHighway(IN, H, depth=3).cell is RecurrentHighway(IN, H).cell is cells.RecurrentHighway
    assert repr(RecurrentHighwayCell(IN, H, depth=1)) == f"RecurrentHighwayCell({IN}, {H}, depth=1)"
    assert repr(EchoState(IN, H, activation=relu, leak=0.5)) == f"EchoState({IN}, {H}, activation=relu, leak=0.5)"
    assert not torch.equal(*(EchoState(IN, H, activation=a)(torch.ones(T, N, IN))[0] for a in (relu, tanh)))


def in_another_process(module):
    """The module loaded from a file in a process in which the cell is not configured yet."""
    file = pickle.dumps(module)
    cells.RecurrentHighway.configurations.pop("depth=2")
    twin = pickle.loads(file)
    assert "depth=2" in cells.RecurrentHighway.configurations
    return twin


@pytest.mark.parametrize("way", [copy.deepcopy, copy.copy, in_another_process])
@pytest.mark.parametrize("kind", [RecurrentHighway, RecurrentHighwayCell])
def test_copies_keep_options(kind, way):
    module = kind(IN, H, depth=2)
    x = torch.randn(N, IN) if kind is RecurrentHighwayCell else torch.randn(T, N, IN)
    twin = way(module)
    assert repr(twin) == repr(module) and twin.cell.options == {"depth": 2}
    assert_close(twin(x), module(x))


def test_a_class_of_ones_own_takes_options_too():
    class Deep(seqcells.RecurrentLayer):
        cell = cells.RecurrentHighway.configured(depth=5)

    assert Deep(IN, H).cell.options["depth"] == 5 and Deep(IN, H, depth=2).cell.options["depth"] == 2
    assert Deep(IN, H, depth=3).cell is cells.RecurrentHighway
    assert "depth=5" in repr(Deep(IN, H))


@pytest.mark.parametrize(
    ("name", "options", "error", "words"),
    [
        ("recurrent_highway", {"width": 3}, TypeError, "RecurrentHighway got an unexpected keyword argument 'width'"),
        ("recurrent_highway", {"depth": 2.0}, TypeError, "depth should be an integer, got 2.0"),
        ("block_gru", {"heads": 3}, ValueError, "hidden_size must be divisible by heads, got 4 and 3"),
        ("block_gru", {"heads": 0}, ValueError, "heads must be greater than zero"),
        ("uneven", {}, TypeError, "the uneven cell is missing a required keyword argument: 'rank'"),
        ("uneven", {"rank": 0}, ValueError, "rank must be greater than zero"),
    ],
)
def test_bad_options(name, options, error, words):
    for kind in (LAYERS[name], MODULES[name]):
        with pytest.raises(error, match=words.replace("RecurrentHighway ", "RecurrentHighway(Cell)? ")):
            kind(IN, H, **options)


@pytest.mark.parametrize("kind", [seqcells.LSTM, seqcells.GRU, seqcells.RNN, seqcells.LSTMCell, seqcells.RNNCell])
def test_torchs_cells_have_no_options(kind):
    with pytest.raises(TypeError, match="unexpected keyword argument 'depth'"):
        kind(IN, H, depth=2)


def test_streams_that_are_missing_are_told_by_functions_too():
    cell = OWN["zoneout_lstm"]
    weights = Weights(hh=torch.randn(4 * H, H))
    with pytest.raises(RuntimeError, match=r"zoneout_lstm expects streams \['keep_h', 'keep_c'\], got \[\]"):
        functional.recurrence(cell, torch.randn(T, N, 4 * H), [torch.zeros(N, H)] * 2, weights)


def test_a_step_that_returns_other_states_is_told():
    def narrow(x, r, s, p):
        return units.mean(x.h)

    def many(x, r, s, p):
        return x.h, x.h

    for step, words in (
        (narrow, r"returns h of size \[3, 1\], expected \(3, 4\)"),
        (many, "returns 2 of its 1 states"),
    ):
        cell = type("Odd", (Cell,), {"name": "odd", "gates": ("h",), "states": ("h",), "step": staticmethod(step)})
        layer = seqcells.define(cell)[0](IN, H)
        del REGISTRY["odd"]
        with pytest.raises(RuntimeError, match=f"step of Odd {words}"):
            layer(torch.randn(T, N, IN))


# Graphs.


def test_a_graph_names_a_configured_cell():
    """So that another process, in which the cell is not configured, finds the same equations."""
    cell = cells.RecurrentHighway.configured(depth=2)
    hash = program(cell)
    cells.RecurrentHighway.configurations.pop("depth=2")
    found = cell_of("recurrent_highway[depth=2]")
    assert found is not cell and program(found) == hash
    assert len({program(cells.RecurrentHighway.configured(depth=depth)) for depth in (1, 2, 3)}) == 3
    made = {
        name: type(name, (OWN["antisymmetric_rnn"],), {"weights": staticmethod(f)}) for name, f in OTHER_WEIGHTS.items()
    }
    assert len({program(each) for each in (OWN["antisymmetric_rnn"], *made.values())}) == 3


OTHER_WEIGHTS = {"Symmetric": lambda w: {"hh": w.hh + w.hh.mT}, "Lower": lambda w: {"hh": w.hh.tril()}}


def test_a_graph_knows_of_heads():
    """A reduction over all units differs from a reduction over each head, and so does a product's weight."""

    def whole(x, r, s, p):
        return x.h + units.max(s.h)

    def each(x, r, s, p):
        return x.h + units.max(s.h, p.heads)

    def cell(step, heads):
        own = {"name": "c", "gates": ("h",), "states": ("h",), "options": {"heads": heads}, "step": staticmethod(step)}
        return type("Declared", (Cell,), own)

    assert len({program(cell(step, heads)) for step in (whole, each) for heads in (2, 4)}) == 4


def test_the_recurrent_product_may_read_what_a_cell_says():
    """A graph records it too: tanh of the state instead of the state."""

    class Squashed(Cell):
        name, gates, states = "squashed", ("h",), ("h",)

        @staticmethod
        def recurrent_operand(x, s):
            return tanh(s.h)

        @staticmethod
        def step(x, r, s, p):
            return s.h + x.h + r.h

    plain = type("Plain", (Squashed,), {"recurrent_operand": Cell.recurrent_operand})
    assert program(Squashed) != program(plain)
    layer = seqcells.define(Squashed)[0](IN, H, dtype=torch.float64)
    del REGISTRY["squashed"]
    x, h = torch.randn(T, N, IN, dtype=torch.float64), torch.randn(N, H, dtype=torch.float64)
    output, final = layer(x, h.unsqueeze(0))
    for t in range(T):
        w = {name.removesuffix("_l0"): p for name, p in layer.named_parameters()}
        h = h + x[t] @ w["weight_ih"].T + w["bias_ih"] + torch.tanh(h) @ w["weight_hh"].T + w["bias_hh"]
        assert_close(output[t], h)
    assert_close(final[0], h)
