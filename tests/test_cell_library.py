"""The cells of the library, which are imported at first use."""

import ast
import re
from pathlib import Path

import pytest
import torch
from loops import LOOPS
from support import needs_compiler
from test_programs import EQUATIONS

import seqcells
from seqcells import cells, check, selftest
from seqcells.cells import BUILT_IN, LIBRARY, Cell

FOLDER = Path(cells.__file__).parent
pytestmark = pytest.mark.usefixtures("own_registry")

NO_PAPER = ("ControlGateLSTM", "LinearMUT1", "LinearMUT2")
"""Cells without a paper that can be found; each is described as similar to a cell with a paper."""


def test_it_has_every_cell_that_has_a_file_and_is_not_imported():
    """No cell is left out: classes with a name, in all files of the folder that `cells` does not import."""
    imported = {node.module for node in ast.parse((FOLDER / "__init__.py").read_text()).body if hasattr(node, "module")}
    found = {}
    for path in FOLDER.glob("[!_]*.py"):
        if path.stem not in imported:
            found |= {
                node.name: path.stem for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef)
            }
    assert found.pop("Activation") and found.pop("Reduction")
    assert found == LIBRARY


@pytest.mark.parametrize("name", LIBRARY)
def test_a_cell_is_where_the_library_says(name):
    cell = getattr(cells, name)
    assert issubclass(cell, Cell) and cell.__name__ == name and cell.__module__ == f"seqcells.cells.{LIBRARY[name]}"
    assert cell is getattr(cells, name) is EQUATIONS[cell.name]
    assert cell.name not in BUILT_IN and name in dir(cells) and name in cells.__all__


def test_no_two_cells_have_a_name():
    public = [each for each in (getattr(cells, name) for name in cells.__all__) if isinstance(each, type)]
    names = [cell.name for cell in public if issubclass(cell, Cell) and cell is not Cell]
    assert len(names) == len(set(names)) > len(LIBRARY)


@pytest.mark.parametrize("name", LIBRARY)
def test_a_docstring_says_what_a_cell_is(name):
    """Its paper, its equations, its options with their defaults, its weights, and the difference from
    torchrecurrent."""
    cell = getattr(cells, name)
    said, base = " ".join(cell.__doc__.split()), cell.__mro__[1]
    options, weights = ({}, ()) if base is Cell else (base.options, base.own_names())
    assert re.search(r"arXiv:\d{4}\.\d{4}|doi:10\.|PMLR", said) or name in NO_PAPER
    assert "' = " in said or "all else is" in said.lower()
    assert "torchrecurrent" in said or all(each.cell != cell.name for each in LOOPS.values() if each.theirs)
    for option in cell.options.keys() - options.keys() - {*cell.sizes.values()}:
        default = cell.options[option]
        assert f"``{option}`` ({getattr(default, 'name', default)})" in said
    for weight in {*cell.own_names()} - {*weights}:
        assert weight.startswith("bias") or f"``{weight}" in said


BEGIN = {
    "FastRNN": {"weight_alpha": -3, "weight_beta": 3},
    "FastGRNN": {"weight_zeta": 1, "weight_nu": -4, "weight_bias": 1},
    "LowRankFastGRNN": {"weight_zeta": 1, "weight_nu": -4, "weight_bias": 1},
}


@pytest.mark.parametrize("name", BEGIN)
def test_numbers_begin_as_in_their_authors_code(name):
    """The initial values of EdgeML's `FastRNNCell` and `FastGRNNCell`."""
    sizes = {"input_rank": 2, "recurrent_rank": 2} if name == "LowRankFastGRNN" else {}
    module = seqcells.define(getattr(cells, name))[1](3, 4, **sizes)
    for weight, value in BEGIN[name].items():
        assert (getattr(module, weight) == value).all()


@pytest.mark.parametrize(("name", "gate"), [("RAN", "g"), ("ResidualLSTM", "x")])
def test_a_bias_that_the_paper_has_not_begins_at_zero(name, gate):
    cell = getattr(cells, name)
    biases = dict(zip(cell.gates, seqcells.define(cell)[1](3, 4).bias_ih.chunk(len(cell.gates)), strict=True))
    assert not biases.pop(gate).any() and all(bias.all() for bias in biases.values())
    assert not hasattr(seqcells.define(cell)[1](3, 4, bias=False), "bias_ih_l0")


def test_a_name_that_there_is_not():
    with pytest.raises(AttributeError, match=r"module 'seqcells\.cells' has no attribute 'LMU'"):
        cells.LMU  # noqa: B018


def of_top(path):
    """A file's classes with their bases, and its functions with their arguments."""
    body = ast.parse(path.read_text()).body
    found = {each.name: [*map(ast.unparse, each.bases)] for each in body if isinstance(each, ast.ClassDef)}
    return found | {f.name: [each.arg for each in f.args.args] for f in body if isinstance(f, ast.FunctionDef)}


@pytest.mark.parametrize("path", sorted(FOLDER.parent.rglob("*.pyi")), ids=lambda path: path.stem)
def test_a_stub_names_what_its_file_has(path):
    """Type checkers read no equations: to them a cell has the attributes of `Cell`."""
    own = {name: what for name, what in of_top(path.with_suffix(".py")).items() if not name.startswith("_")}
    assert of_top(path) == own


def test_every_cell_has_a_stub():
    files = {*LIBRARY.values(), *(cell.__module__.rpartition(".")[2] for cell in BUILT_IN.values())}
    assert {path.stem for path in FOLDER.glob("*.pyi")} == files
    named = re.findall(r"    from \.(\w+) import (\w+) as \2\n", (FOLDER / "__init__.py").read_text())
    assert {name: file for file, name in named} == LIBRARY


def test_defined_it_is_a_layer_and_a_cell_module():
    layer, module = seqcells.define(cells.LEM)
    assert layer(3, 4, dt=0.5).cell.name == "lem[dt=0.5]" and module(3, 4).weight_slow.shape == (4, 4)
    assert layer.__module__ == __name__ and "arXiv:2110.04744" in layer.__doc__


REFERENCES = ("MemoryBlockLSTM",)
"""Cells that only the reference runs: this one reduces over heads."""


@needs_compiler
@pytest.mark.heavy
@pytest.mark.parametrize("name", LIBRARY)
def test_every_cell_runs_on_the_cpu(name, compiling):
    """In float64, plain, and stacked with both directions and boundaries."""
    cell = getattr(cells, name)
    cell = cell.configured(**{option: 4 for option, value in cell.options.items() if value is None})
    cells.register(cell)
    sizes = 5, 3, 4, 6 * cell.heads()
    several = {"num_layers": 2, "bidirectional": True, "boundaries": True}
    for more in ({}, several):
        case = check.case_of(cell, sizes, torch.float64, **more)
        outcomes = [*selftest.check(case, [("cpu", "cpu")])]
        assert bool(outcomes) == (name not in REFERENCES)
        for outcome in outcomes:
            assert outcome.passed, outcome
