"""Every cell's two programs against autograd over a plain loop of its step, in float64."""

import pytest
import torch
from equations import every
from programs import B, H, T, check, hoisted
from support import plain_if

from seqcells import cells
from seqcells.cells import REGISTRY, Cell
from seqcells.derive.derivation import derive
from seqcells.derive.expressions import Product
from seqcells.derive.interpret import interpret
from seqcells.derive.one_stage import one_stage

PUBLIC = [getattr(cells, name) for name in cells.__all__]
PUBLIC = [cell for cell in PUBLIC if isinstance(cell, type) and issubclass(cell, Cell) and cell is not Cell]
EQUATIONS = every()
CELLS = {cell.name: cell for cell in [*PUBLIC, *EQUATIONS.values()]}
CELLS |= {
    cell.name: cell
    for cell in (
        cells.RecurrentHighway.configured(depth=1),
        EQUATIONS["cornn"].configured(implicit=True),
        EQUATIONS["lem"].configured(renewed=False),
        EQUATIONS["nas"].configured(multiplied=False),
        EQUATIONS["original_lstm"].configured(rescaled=False),
        EQUATIONS["continuous_time_rnn"].configured(euler=True),
        EQUATIONS["tau_gru"].configured(delay=1),
        cells.LSTM.projected(),
        cells.SLSTM.projected(),
        cells.Jordan.projected(),
    )
}
WAYS = {
    "plain": {"reset": False, "lengths": False},
    "reset": {"lengths": False},
    "lengths": {"reset": False},
    "both": {},
    "reversed": {"steps": range(T)[::-1]},
    "hoisted": {"run": hoisted},
}


@plain_if(lambda way, **_: way == "hoisted")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", CELLS)
def test_is_the_gradient_of_its_step(name, way):
    check(CELLS[name], **WAYS[way])


def test_nothing_leaves_sequences_that_have_ended():
    """A sequence without a step: its normaliser stays zero, and backward divides by it."""
    none = torch.zeros(B, H, dtype=torch.float64, requires_grad=True)
    valid = torch.arange(T).unsqueeze(1) < torch.tensor([0, 2, T])
    check(cells.SLSTM, reset=False, valid=valid, **{"carried.n": none})


# Jordan is left out: its printed kernels keep the first state before its projection.
@pytest.mark.parametrize("name", [name for name in REGISTRY if name != "jordan"])
def test_keeps_what_the_printed_kernels_keep(name):
    """The same number of vectors, and the same states before and after each step."""
    cell, printed = REGISTRY[name], one_stage(REGISTRY[name])
    derived = derive(cell)
    assert len(derived.saved) == len(printed.fields["saved"])
    found = {a.args[0] for stage in derived.backward.stages for v in stage.block for a in v.inner if a.op == "leaf"}
    for when, reads in (("before", printed.previous), ("after", printed.next)):
        mine = [f"{when}.{state}" in found for state in cell.states]
        # The printed kernels project the first state after the step, so they do not have it.
        assert mine[cell.projection :] == list(reads[cell.projection :])


STAGES = {
    "lstm": ("4P", "4P"),
    "gru": ("3P", "3P"),
    "indrnn": ("", ""),
    "gru_reset_before": ("2P, 1P", "1P, 2P"),
    "mgu": ("1P, 1P", "1P, 1P"),
    "multiplicative_lstm": ("1P, 4P", "4P, 1P"),
    "recurrent_highway": ("2P, 2P, 2P", "2P, 2P, 2P"),
    "recurrent_highway[depth=1]": ("2P", "2P"),
    "layer_norm_lstm": ("4P 8R, 8R, 2R", "2R, 4R, 4P"),
    "projected_lstm": ("4P, 1P", "1P, 4P"),
    "softmax_rnn": ("1P 1R, 1R, 1P 1R", "1P 3R, 2R, 1P"),
}


def gathers(program):
    """The row blocks of products, and the reductions, of each stage with gathers."""
    found = []
    for stage in program.stages:
        products = sum(len(v.op.blocks) for v in stage.gathers if isinstance(v.op, Product))
        reductions = sum(not isinstance(v.op, Product) for v in stage.gathers)
        found.append(" ".join(f"{n}{kind}" for n, kind in ((products, "P"), (reductions, "R")) if n))
    return ", ".join(filter(None, found))


@pytest.mark.parametrize("name", STAGES)
def test_stages(name):
    """Counted by hand from the equations: the longest chain of gathers, forward and backward."""
    assert tuple(map(gathers, derive(CELLS[name])[:2])) == STAGES[name]


def test_derived_twice_is_the_same():
    first, second = (derive(cells.LayerNormLSTM) for _ in range(2))
    assert [*first.saved] == [*second.saved]
    assert [[*p.outputs] for p in first[:2]] == [[*p.outputs] for p in second[:2]]


def test_interpreted_without_being_told_the_sizes():
    check(cells.GRUResetBefore, run=lambda program, given, times: interpret(program, given, times))
