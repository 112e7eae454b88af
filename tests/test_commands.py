"""The commands about a cell: the report for its author, and kernels compiled before their first use."""

import argparse
import sys
import textwrap

import pytest
import torch
from support import needs_compiler

import seqcells
from seqcells import cell_argument, cells, check, compile, selftest
from seqcells.cells import REGISTRY

MINE = """
    import seqcells
    from seqcells.cells.activations import sigmoid, tanh


    class Leaky(seqcells.cells.Cell):
        name, gates, states = "leaky_of_commands", ("h", "g"), ("h",)
        options = {"rate": 0.5}

        def step(x, r, s, p):
            gate = sigmoid(x.g + r.g)
            return s.h + p.rate * gate * (tanh(x.h + r.h) - s.h)


    class LeakyLayer(seqcells.RecurrentLayer):
        cell = Leaky


    NOT_A_CELL = 3
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A user's module in the folder in which the command is called."""
    (tmp_path / "cells_of_mine.py").write_text(textwrap.dedent(MINE))
    (tmp_path / "broken_of_mine.py").write_text("raise TypeError('it is Sunday')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("SEQCELLS_CACHE", str(tmp_path / "cache"))
    yield tmp_path
    sys.modules.pop("cells_of_mine", None)
    REGISTRY.pop("leaky_of_commands", None)
    cells._REPLACED.pop("leaky_of_commands", None)


def test_a_cell_is_found_by_its_module(mine):
    found = cell_argument.cell_named("cells_of_mine:Leaky")
    assert found.name == "leaky_of_commands"
    assert cell_argument.cell_named("cells_of_mine:LeakyLayer") is found
    assert cell_argument.cell_named("cells_of_mine:Leaky[rate=0.25]").options == {"rate": 0.25}
    assert cell_argument.cell_named("seqcells:GRU") is cells.GRU
    assert cell_argument.cell_named("seqcells.cells:LEM") is cells.LEM
    assert cell_argument.place_of(found) == "cells_of_mine.py:10"


@pytest.mark.parametrize(
    ("spelled", "words"),
    [
        ("cells_of_mine", "is not of the form module:Cell"),
        ("no_such_module:Leaky", "no_such_module cannot be imported"),
        ("cells_of_mine:Leek", "cells_of_mine has no Leek"),
        ("cells_of_mine:NOT_A_CELL", "is no cell, no layer and no module of one"),
        ("cells_of_mine:Leaky[rat=2]", "has no options 'rat=2'"),
        ("seqcells:RNN", "has several cells: name one"),
        ("broken_of_mine:Leaky", "broken_of_mine cannot be imported: TypeError: it is Sunday"),
    ],
)
def test_what_is_no_cell_is_told(mine, spelled, words):
    with pytest.raises(argparse.ArgumentTypeError, match=words):
        cell_argument.cell_named(spelled)


@needs_compiler
def test_compile_ahead_of_time(mine, capfd, compiling):
    """Compiled for the instruction set in use and for another one, once; then no compiler runs."""
    target, *_ = compile.here()
    other = "avx2" if target != "avx2" else "portable"
    for _ in range(2):
        assert compile.main(["cells_of_mine:Leaky", "--target", target, other]) == 0
    said = capfd.readouterr()
    assert said.err.count("compiling leaky_of_commands") == 2
    assert said.out.count(f"leaky_of_commands for {target}, float32: ") == 2
    assert len([*(mine / "cache" / "kernels").glob("*.so")]) == 4
    from cells_of_mine import LeakyLayer

    LeakyLayer(3, 4, backend="cpu")(torch.ones(2, 1, 3))
    assert "compiling" not in capfd.readouterr().err


@needs_compiler
def test_what_cannot_be_made_is_told(mine, capsys):
    assert compile.main(["cells_of_mine:Leaky", "--target", "portable", "--keep", "nothing"]) == 1
    assert "not made: the leaky_of_commands cell has no value 'nothing' to keep" in capsys.readouterr().out
    assert compile.main(["seqcells:GRU", "--target", compile.here()[0]]) == 0
    assert "the extension has them" in capsys.readouterr().out


@needs_compiler
def test_check_tells_what_an_author_wants_to_know(mine, capsys, compiling):
    assert check.main(["cells_of_mine:Leaky", "--no-times"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "leaky_of_commands, cells_of_mine.py:10: gates h, g; states h"
    assert lines[1:3] == [
        "forward: 1 stage, after the product with weight_hh",
        "backward: 1 stage, after the product with weight_hh transposed",
    ]
    assert lines[3].startswith("kept for backward besides the states, of each step and sequence: gate, tanh")
    assert lines[4] == "gradients: the reference's are those of finite differences"
    assert any(line.startswith("cpu on cpu: as the equations say") for line in lines)


@needs_compiler
def test_check_finds_wrong_kernels(mine, capsys, compiling, monkeypatch):
    """The engine is made to compute a cell of other equations."""
    from cells_of_mine import Leaky

    results = selftest._results

    def wrong(layer, given, case, dtype, device, backend):
        found = results(layer, given, case, dtype, device, backend)
        return [tensor * 1.01 for tensor in found] if backend == "cpu" else found

    monkeypatch.setattr(selftest, "_results", wrong)
    assert check.main(["cells_of_mine:Leaky", "--no-times"]) == 1
    assert "cpu on cpu: WRONG" in capsys.readouterr().out
    assert Leaky.name in REGISTRY


def test_check_of_what_has_no_graph(mine, capsys):
    (mine / "cells_of_mine.py").write_text(
        textwrap.dedent(MINE).replace("gate = sigmoid(x.g + r.g)", "gate = abs(x.g)")
    )
    assert check.main(["cells_of_mine:Leaky", "--no-times"]) == 1
    assert "no kernels can be derived: " in capsys.readouterr().out


def test_check_asks_for_options_without_a_default(capsys):
    with pytest.raises(SystemExit):
        check.main(["seqcells.cells:LowRankFastGRNN"])
    assert "needs options: LowRankFastGRNN[input_rank=…" in capsys.readouterr().err


@pytest.mark.heavy
def test_check_measures_beside_the_nearest_cell(monkeypatch, capsys):
    monkeypatch.setattr(check, "TIMED", ((1, 8),))
    lines = [*check.times(cells.GRU, "cpu")]
    assert [line.split(":")[0] for line in lines] == [f"cpu {kind} B1 H8 T100" for kind in ("inference", "training")]
    assert all("ms of GRU" in line for line in lines)
    assert check.nearest(cells.LEM) is seqcells.LSTM
