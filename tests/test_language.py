"""What the cell language refuses, and errors that its programs must avoid."""

import re
from pathlib import Path

import pytest
import torch
from equations import every
from programs import B, T, backward, check, forward, hoisted, make
from support import plain_if
from test_programs import CELLS

from seqcells import cells
from seqcells.cells import Cell, Product, units
from seqcells.cells.activations import Activation, relu, tanh
from seqcells.derive.derivation import derive
from seqcells.derive.expressions import DerivationError
from seqcells.derive.hoist import hoist
from seqcells.derive.interpret import interpret

OWN = every()


def declared(**attributes):
    given = {"name": "c", "gates": ("h",), "states": ("h",)} | attributes
    return type("Declared", (Cell,), given | {"step": staticmethod(given["step"])})


# What a step may not do: the error names the line.


def adds_input(x, r, s, p):
    return x.input + r.h


def adds_state(x, r, s, p):
    return s.h + x.h


def returns_input(x, r, s, p):
    return x.input


def multiplies_wrong(x, r, s, p):
    return p.m(s.h)


def reduces_twice(x, r, s, p):
    return x.h + units.mean(units.mean(s.h))


def returns_vector_for_heads(x, r, s, p):
    return s.h, s.h


def branches(x, r, s, p):
    return s.h if x.h > 0 else r.h


def multiplies_a_number(x, r, s, p):
    return p.m(units.mean(s.h))


def returns_a_parameter(x, r, s, p):
    return p.u


def returns_no_output(x, r, s, p):
    return x.h + r.h


REFUSED = [
    (adds_input, r"\+ of values of different sizes: F and H", {"streams": {"input": "TBF"}}),
    (adds_state, r"\+ of values of different sizes: H and P", {"states": {"h": "P"}, "sizes": {"P": "p"}}),
    (returns_input, "its state h is of size H, its next value of size F", {"streams": {"input": "TBF"}}),
    (multiplies_wrong, "weight_m is applied to a value of size H, not K", {"products": {"m": Product(("a",), "HK")}}),
    (reduces_twice, "mean over the units of a value that has none", {}),
    (returns_vector_for_heads, "state l is of size N, its next value of size H", {"states": {"h": "H", "l": "N"}}),
    (branches, "cannot branch on values", {}),
    (multiplies_a_number, "the product m of what is no vector of units", {"products": {"m": ("a",)}}),
    (returns_a_parameter, "its next value the same for all", {"parameters": {"u": ("u",)}}),
    (returns_no_output, r"returns 1 of its results \(h, y\)", {"output": "y"}),
]


@pytest.mark.parametrize(("step", "words", "attributes"), REFUSED, ids=[step.__name__ for step, *_ in REFUSED])
def test_a_step_is_refused_with_its_line(step, words, attributes):
    declarations = {"options": {"heads": 2}, "sizes": {"K": "k"}} | attributes
    with pytest.raises(DerivationError, match=words) as error:
        derive(declared(step=step, **declarations))
    line = step.__code__.co_firstlineno + 1
    assert f"test_language.py:{line}: step of Declared: " in str(error.value)


def test_a_projected_cell_may_not_read_its_first_state():
    with pytest.raises(DerivationError, match=r"gru\.py:\d+: step of ProjectedGRU: .* sizes: H and P"):
        derive(cells.GRU.projected())


# What a declaration may not say.


@pytest.mark.parametrize(
    ("words", "attributes"),
    [
        ("must state its gates", {"gates": ()}),
        ("must state a name without brackets", {"name": "c[d=2]"}),
        ("cannot have a parameter hh", {"products": {"hh": ("h",)}}),
        ("cannot have a parameter a", {"products": {"a": ("h",)}, "scalars": ("a",)}),
        ("has two things that step knows as p.a", {"parameters": {"u": ("a",)}, "options": {"a": 1.0}}),
        ("has two things that step knows as p.a", {"parameters": {"u": ("a",), "v": ("a",)}}),
        ("has two things that step knows as x.h", {"streams": {"h": "TB"}}),
        ("cannot have an option dropout", {"options": {"dropout": 0.5}}),
        ("has no size K", {"products": {"m": Product(("h",), "HK")}}),
        ("has no size N", {"states": {"h": "H", "l": "N"}}),
        ("has a stream .* of axes .*: T comes first", {"streams": {"mask": "BT"}}),
        (
            "has rows of different sizes in u: H and K",
            {"parameters": {"u": {"a": "H", "b": "K"}}, "sizes": {"K": "rank"}},
        ),
        ("has an initial value for gain, which is no row", {"initial": {"gain": 1.0}}),
        ("has an initial value for bias_hh.x, which is no row", {"initial": {"bias_hh.x": 1.0}}),
    ],
)
def test_a_declaration_is_refused(words, attributes):
    with pytest.raises(TypeError, match=f"cell Declared {words}"):
        declared(step=adds_state, **attributes)


# Options.


def test_one_class_for_one_set_of_options():
    highway = cells.RecurrentHighway
    assert highway.configured(depth=3) is highway.configured() is highway
    two = highway.configured(depth=2)
    assert two is highway.configured(depth=2) is highway.configured(depth=5).configured(depth=2)
    assert two.configured(depth=3) is highway
    assert two.name == "recurrent_highway[depth=2]" and two.options == {"depth": 2}
    assert two.own_names() == ("weight_deeper1", "bias_deeper1")
    echo = OWN["echo_state"].configured(leak=1, activation=relu)
    assert echo is OWN["echo_state"].configured(activation=relu, leak=1.0)
    assert echo.name == "echo_state[activation=relu,leak=1.0]"
    third = OWN["echo_state"].configured(leak=1 / 3)
    assert third.options["leak"] == 1 / 3 and third is not OWN["echo_state"].configured(leak=0.333333)
    assert OWN["cornn"].configured(implicit=True).name == "cornn[implicit=True]"


def test_a_configured_cell_is_found_by_its_name():
    for cell in (cells.RecurrentHighway, OWN["echo_state"], OWN["cornn"]):
        cells.register(cell)
    try:
        for cell in (
            cells.RecurrentHighway.configured(depth=7),
            OWN["echo_state"].configured(leak=1e-300, activation=relu),
            OWN["cornn"].configured(implicit=True, dt=1 / 3),
            cells.GRU,
        ):
            assert cells.named(cell.name) is cell
        assert cells.named("recurrent_highway[depth=3]") is cells.RecurrentHighway
        for name in ("gru[", "gru[depth=2]", "recurrent_highway[depth=2", "recurrent_highway[depth]", "none", ""):
            with pytest.raises(ValueError, match=re.escape(repr(name)) + "|has no options|invalid literal"):
                cells.named(name)
        for name in ("recurrent_highway[depth=x]", "cornn[implicit=1]", "echo_state[activation=sin]"):
            with pytest.raises(ValueError):
                cells.named(name)
    finally:
        for name in ("recurrent_highway", "echo_state", "cornn"):
            del cells.REGISTRY[name]


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("uncoupled_recurrent_highway", {"width": 2}, "got an unexpected option 'width'"),
        ("uncoupled_recurrent_highway", {"depth": 2.5}, "depth should be an integer, got 2.5"),
        ("uncoupled_recurrent_highway", {"depth": True}, "depth should be an integer, got True"),
        ("echo_state", {"leak": "much"}, "leak should be a number, got 'much'"),
        ("echo_state", {"leak": None}, "leak should be a number, got None"),
        ("echo_state", {"activation": torch.tanh}, "activation should be an activation of seqcells"),
        (
            "echo_state",
            {"activation": Activation("tanh", torch.tanh, None)},
            "activation should be an activation of seqcells",
        ),
        ("cornn", {"implicit": 1}, "implicit should be True or False, got 1"),
        ("low_rank_fast_grnn", {"input_rank": 1.5}, "input_rank should be an integer, got 1.5"),
    ],
)
def test_options_are_checked(name, options, words):
    with pytest.raises(TypeError, match=words):
        OWN[name].configured(**options)


def test_there_is_no_negative_number_of_products():
    with pytest.raises(ValueError, match="there cannot be -1 of deeper: depth=0"):
        cells.RecurrentHighway.configured(depth=0)


def test_an_option_may_be_an_activation():
    check(OWN["echo_state"].configured(activation=relu, leak=1.0))


# Cases that are easy to get wrong.


MANY = cells.REGISTRY.keys() | {"softmax_rnn", "head_attention", "mixed_sizes", "scrn", "gru_d"}
"""Cells that together read all kinds of values."""


@plain_if(lambda name, run: run == "hoisted" and name in MANY)
@pytest.mark.parametrize("run", ["interpreted", "hoisted"])
@pytest.mark.parametrize("name", CELLS)
def test_padding_may_be_anything(name, run):
    """NaN after a sequence's end, in every stream and in the values kept for backward. Results and gradients are
    finite, and equal those with zeros there."""
    cell, run = CELLS[name], {"interpreted": interpret, "hoisted": hoisted}[run]
    derived = derive(cell, reset=True, lengths=True)
    given = {name: v.detach() for name, v in make(cell, derived).items()}
    ended, found = ~given["valid"], []

    def filled(values, axes, filler):
        of_steps = [leaf for leaf in values if axes.get(leaf, "").startswith("TB") and leaf not in ("valid", "reset")]
        anything = torch.tensor(filler, dtype=torch.float64)
        return values | {leaf: values[leaf].index_put((ended,), anything) for leaf in of_steps}

    for filler in (0.0, float("nan")):
        inputs = filled(given, derived.forward.leaves, filler)
        results = forward(cell, derived, inputs, range(T), run)
        seeds = {n: torch.ones_like(v) for n, v in results.items() if n.startswith(("output", "kept", "carried"))}
        saved = {leaf: axes for leaf, axes in derived.backward.leaves.items() if leaf.startswith("saved")}
        results = filled(results, saved, filler)
        found.append({f"d.{n}": d for n, d in backward(cell, derived, inputs, results, seeds, range(T), run).items()})
        found[-1] |= {n: results[n] for n in seeds}
    for leaf, v in found[0].items():
        assert v.isfinite().all(), leaf
        assert torch.equal(found[1][leaf], v), leaf


def test_a_delayed_state_is_kept_a_second_time():
    """Backward needs h of four steps ago. This history is h's own, shifted, so an engine may keep only one."""
    cell = OWN["tau_gru"]
    derived = derive(cell)
    given = {name: v.detach() for name, v in make(cell, derived).items()}
    results = forward(cell, derived, given, range(T))
    assert {name for name in results if name.startswith("after.")} == {"after.h", "after.past3"}
    torch.testing.assert_close(results["after.past3"][3:], results["after.h"][:-3])


@pytest.mark.parametrize("name", ["tgru", "tlstm"])
def test_strongly_typed_cells_gather_nothing_in_the_loop(name):
    for program in derive(OWN[name], reset=True, lengths=True)[:2]:
        assert not any(stage.gathers for stage in hoist(program).loop.stages)


@pytest.mark.parametrize(
    ("name", "blocks"), [("intersection_rnn", 2), ("control_gate_lstm", 4), ("scrn", 1), ("lstm", 4)]
)
def test_what_is_no_state_leaves_the_loop(name, blocks):
    """Row blocks that only the output needs are one product over all steps."""
    for program in derive(CELLS[name])[:2]:
        loop = hoist(program).loop
        assert sum(len(v.op.blocks) for stage in loop.stages for v in stage.gathers) == blocks


@plain_if(lambda name: CELLS[name].heads() > 1 or {*CELLS[name].state_sizes.values()} != {"H"})
@pytest.mark.parametrize("name", CELLS)
def test_what_is_carried_on_needs_no_gather(name):
    """The gradient of a state of another size than the step's vectors is summed within the step."""
    for program in derive(CELLS[name])[:2]:
        for axes, value in program.carried.values():
            assert value.axes in (axes, "", "B")


def test_numbers_of_heads_are_kept_as_such():
    saved = derive(OWN["memory_block_lstm"]).saved.values()
    assert [v.axes for v in saved].count("BN") == 3


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_ties_of_heads_and_of_units(value):
    """All units are equal, within heads and over all units: max divides its gradient as torch's does."""
    cell = OWN["head_attention"]
    given = make(cell, derive(cell))
    names = [n for n in given if n.startswith(("carried", "x.a"))]
    equal = {n: torch.full_like(given[n], value).requires_grad_() for n in names}
    equal |= {n: torch.zeros_like(v).requires_grad_() for n, v in given.items() if n.endswith("_hh")}
    check(cell, reset=False, lengths=False, **equal)


@pytest.mark.parametrize("name", ["block_gru", "layer_norm_lstm", "layer_norm_gru"])
def test_layer_norm_of_equal_units(name):
    """The variance is zero: rsqrt(epsilon) is large, but finite."""
    given = make(CELLS[name], derive(CELLS[name]))
    zeros = {n: torch.zeros_like(v).requires_grad_() for n, v in given.items() if n.startswith(("carried", "x."))}
    check(CELLS[name], reset=False, lengths=False, **zeros)


def test_no_time_elapsed_changes_nothing():
    cell = OWN["continuous_time_rnn"]
    derived = derive(cell)
    given = {n: v.detach() for n, v in make(cell, derived).items()} | {"x.elapsed": torch.zeros(T, B).double()}
    assert torch.equal(forward(cell, derived, given, range(T))["carried.h"], given["carried.h"])


def test_a_weight_used_twice_and_a_state_returned_twice():
    def step(x, r, s, p):
        h = tanh(x.h + p.m(s.h) + p.m(s.c * s.h))
        return h, h

    check(declared(step=step, recurrent_gates=(), states=("h", "c"), products={"m": ("h",)}))


def test_constant_states_and_outputs():
    """A state that the step sets to a constant, a state that it does not change, and an output that is a stream."""

    def step(x, r, s, p):
        return x.h * s.c + s.k, s.h * 0 + 1.0, s.k, x.h

    check(declared(step=step, recurrent_gates=(), states=("h", "c", "k"), output="y"))


@pytest.mark.parametrize("kept", [(), ("attention",)])
def test_only_kept_values_that_are_asked_for(kept):
    derived = derive(OWN["softmax_rnn"], kept=kept)
    assert [name for name in derived.forward.outputs if name.startswith("kept")] == [f"kept.{name}" for name in kept]
    assert any(name.startswith("d.kept") for name in derived.backward.leaves) == bool(kept)


def test_every_file_of_cells_is_short():
    folders = Path(cells.__file__).parent, Path(__file__).parent / "equations"
    others = {"__init__.py", "base.py", "declared.py", "activations.py", "units.py", "library.py"}
    files = [file for folder in folders for file in folder.glob("*.py") if file.name not in others]
    assert len(files) > 50
    assert max(len(file.read_text().splitlines()) for file in files) <= 40
