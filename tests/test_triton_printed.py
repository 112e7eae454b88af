"""Cells for which the package has no Triton kernels: printed at first use, kept, and equal to the reference."""

import os
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from support import as_tuple, assert_equal_to, gradients, like_module, plain_if
from test_triton import run_interpreted
from test_triton_stages import divided

import seqcells
from seqcells import cells
from seqcells.backends import why_not_for
from seqcells.call import choose
from seqcells.cells import Cell, units
from seqcells.cells.activations import sigmoid, tanh, where
from seqcells.derive import kernel_cache
from seqcells.derive.named_values import named_values
from seqcells.request.call import Call

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
here = pytest.mark.skipif(not INTERPRETED, reason="runs in the child process")

if INTERPRETED:
    import concurrent_programs

    from seqcells.kernels.triton.host import printed_kernels
    from seqcells.kernels.triton.plans import staged_stepwise

__all__ = ["divided"]  # a fixture
T, B, IN, H = 3, 3, 4, 5


@pytest.mark.skipif(INTERPRETED, reason="this is the child process")
def test_in_a_process_that_interprets():
    run_interpreted("test_triton_printed.py -m 'not heavy'")


@pytest.mark.heavy
@pytest.mark.skipif(INTERPRETED, reason="this is the child process")
def test_the_rest_in_a_process_that_interprets():
    run_interpreted("test_triton_printed.py -m heavy")


class Streamed(Cell):
    """A cell that reads streams of all axes; all of them have gradients."""

    name = "streamed"
    gates, states = ("n", "z"), ("h",)
    streams = {
        "tbh": "TBH",
        "bh": "BH",
        "tb": "TB",
        "b": "B",
        "th": "TH",
        "t": "T",
        "h": "H",
        "one": "",
        "input": "TBH",
    }

    @staticmethod
    def step(x, r, s, p):
        update = sigmoid(x.z + r.z * x.tb + x.bh * x.t)
        new = tanh(x.n + x.b * r.n + x.h * x.tbh + x.one * x.input * x.th)
        return update * s.h + (1 - update) * new


class Quoted(Cell):
    '''Says """quotes""" and a \\ in its first "line"'''

    name = '3 "gates" \\ of them'
    gates, states, kept = ("a", "b"), ("h", "c"), ("both",)

    @staticmethod
    def step(x, r, s, p):
        """What """ r'''\n may stand here: """.'''
        both = where(x.a > float("-inf"), x.a + r.a, x.b) + x.b
        return tanh(both + s.c), sigmoid(r.b) * both, both


class Rows(Cell):
    """A cell that reduces rows."""

    name = "rows_of_the_tests"
    gates, states = ("h",), ("h",)

    @staticmethod
    def step(x, r, s, p):
        return units.softmax(x.h + r.h) + s.h


@pytest.fixture(autouse=True)
def forgotten(monkeypatch, tmp_path):
    """A cache of the test's own, no remembered results, and the registry restored."""
    monkeypatch.setattr(cells, "REGISTRY", dict(cells.REGISTRY))
    monkeypatch.setenv("SEQCELLS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SEQCELLS_COMPILE", raising=False)

    def forget():
        kernel_cache._own_folder.cache_clear()
        if INTERPRETED:
            printed_kernels._passes_or_reason.cache_clear()

    forget()
    yield forget
    forget()


def files():
    return sorted(Path(os.environ["SEQCELLS_CACHE"], "kernels").glob("*"))


def layer(cell, backend="triton-stepwise", features=IN, hidden=H, **options):
    torch.manual_seed(1)
    return seqcells.define(cell)[0](features, hidden, dtype=torch.float64, backend=backend, **options)


def given_streams(cell, sides, hidden):
    """For each stream, a tensor that requires gradients; every second stream has its own values for each direction."""
    sizes, found = {"T": T, "B": B, "H": hidden}, {}
    for k, (name, axes) in enumerate(cell.streams.items()):
        if name != "input":
            shape = [sides] * (k % 2) + [sizes[axis] for axis in axes]
            found[name] = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    return found


def both(module, bounded=True, keep=()):
    """Results and all gradients of a layer by its backend, and by the reference."""
    torch.manual_seed(2)
    sides, cell, hidden = 1 + module.bidirectional, module.cell, module.hidden_size

    def randn(*shape):
        return torch.randn(*shape, dtype=torch.float64, requires_grad=True)

    x, streams = randn(T, B, module.input_size), given_streams(cell, sides, hidden)
    states, fresh = ([randn(sides, B, hidden) for _ in cell.states] for _ in range(2))
    given = {"keep": keep} if keep else {}
    if bounded:
        reset = torch.tensor([[0, 0, 1], [1, 0, 0], [0, 0, 1]]).bool()
        given |= {"lengths": torch.tensor([T, 0, T - 1]), "reset": reset, "reset_state": like_module(fresh)}
    leaves = [x, *states, *fresh * bounded, *module.parameters(), *streams.values()]
    found = []
    for name in (module.backend, "reference"):
        module.backend = name
        torch.manual_seed(3)  # the masks of dropout
        output, final, *kept = module(x, like_module(states), **given, **streams)
        results = [output, *as_tuple(final), *(kept[0][name] for name in (keep if kept else ()))]
        found.append([each.detach() for each in results] + gradients(results, leaves))
    return found


@here
@plain_if(lambda bidirectional: bidirectional)
@pytest.mark.parametrize("bidirectional", (True, False))
def test_streams_of_all_axes_as_the_reference(bidirectional):
    """The layer's own input is among them; forward and every gradient, with lengths and resets."""
    assert_equal_to(*both(layer(Streamed, features=H, bidirectional=bidirectional)), 1e-10)


@here
@pytest.mark.parametrize(
    ("cell", "names"),
    [
        (Quoted, ("both", "c", "h", "a")),
        pytest.param(cells.LSTM, ("f", "c"), marks=pytest.mark.heavy),
        pytest.param(cells.LayerNormGRU, ("update", "h"), marks=pytest.mark.heavy),
    ],
)
def test_kept_values_as_the_reference(cell, names):
    """Cells with names and docstrings of any kind, cells whose one-stage kernels the package has, and other cells."""
    names = tuple(name for name in names if name in named_values(cell))
    assert_equal_to(*both(layer(cell, bidirectional=True), keep=names), 1e-10)


@here
@plain_if(lambda cell, options: cell is cells.MGU)
@pytest.mark.parametrize("options", ({"zoneout": 0.4, "recurrent_dropout": 0.3},), ids=str)
@pytest.mark.parametrize("cell", (cells.MGU, cells.LSTM, cells.LayerNormLSTM))
def test_regularised_cells_as_the_reference(cell, options):
    """They are not confused with the cells that they are made of, whose kernels the package has."""
    module = layer(cell, **options)
    assert_equal_to(*both(module), 1e-10)
    module.backend = "triton"
    assert module.plan(torch.zeros(T, B, IN, dtype=torch.float64)).backend == "triton"


@here
@pytest.mark.heavy
@pytest.mark.parametrize(
    ("cell", "keep"), [(Streamed, ()), (cells.LayerNormGRU, ("update", "h")), (cells.LSTM, ("f",))]
)
def test_programs_together_read_streams_and_keep(cell, keep, divided):
    """Equal to the reference: three programs of eight units in each direction."""
    module = layer(cell, "triton-persistent", features=24, hidden=24, bidirectional=True)
    with concurrent_programs.concurrent() as launched:
        found = both(module, keep=keep)
    assert launched == [6, 6]
    assert_equal_to(*found, 1e-10)


@here
def test_a_cell_of_a_package_cells_name_is_another():
    """Its kernels have its own equations, not those of the package's cell of that name."""

    def step(x, r, s, p):
        return tanh(x.f + r.h * p.candidate(s.h))

    own = {"name": "mgu", "gates": ("f",), "recurrent_gates": ("h",), "states": ("h",), "step": staticmethod(step)}
    assert_equal_to(*both(layer(type("Own", (Cell,), {**own, "products": {"candidate": ("h",)}})), False), 1e-10)


def leaky(rate):
    """A class as a notebook defines it again and again."""

    class Leaky(Cell):
        """A leaky cell."""

        name = "leaky_of_a_notebook"
        gates, states = ("n",), ("h",)

        @staticmethod
        def step(x, r, s, p):
            return s.h + rate * (tanh(x.n + r.n) - s.h)

    return Leaky


@here
def test_a_class_that_is_defined_again_has_kernels_of_its_own():
    """Objects made before the new definition keep their kernels. By hand: from zero, without a product, h = rate ·
    tanh(bias)."""
    x, found = torch.zeros(1, 1, IN, dtype=torch.float64), []
    for rate in (0.5, 0.25):
        module = layer(leaky(rate))
        with torch.no_grad():
            module.bias_ih_l0.fill_(1.0)
            module.bias_hh_l0.zero_()
        found.append((module, rate * torch.tanh(torch.ones(1, 1, H, dtype=torch.float64))))
    with torch.no_grad():
        for module, expected in [*found, *found]:
            torch.testing.assert_close(module(x)[0], expected)
    assert len(files()) == 2


@here
def test_printed_once(forgotten):
    """One file, named by the hash of its text. Without the call no file is made; with the file nothing is written."""
    assert printed_kernels.why_not(Rows) is None
    (path,) = files()
    assert (
        path.stem == kernel_cache.key(path.read_text())
        and Path(printed_kernels.passes(Rows).forward.function.fn.__code__.co_filename) == path
    )
    before = path.stat()
    forgotten()
    assert printed_kernels.why_not(Rows) is None and files() == [path]
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == (before.st_mtime_ns, before.st_ino)
    assert printed_kernels.report() == [f"kept in {path.parent}: 1 printed cells"]


@here
def test_where_the_cache_cannot_be_written_kernels_are_the_processs_own(monkeypatch, tmp_path, capfd):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SEQCELLS_CACHE", str(tmp_path / "file"))  # a file, because root may write to any folder
    assert printed_kernels.why_not(Rows) is None
    assert "set SEQCELLS_CACHE to a folder" in capfd.readouterr().err


@here
def test_never(monkeypatch):
    """Kernels of the package still run; kernels that were printed before do not."""
    monkeypatch.setenv("SEQCELLS_COMPILE", "never")
    words = "no kernels have been derived for the rows_of_the_tests cell, and SEQCELLS_COMPILE=never"
    assert printed_kernels.why_not(Rows) == words and printed_kernels.why_not(cells.MGU) is None and files() == []
    with pytest.raises(RuntimeError, match=f"backend='triton' cannot run this call: {words}"):
        layer(Rows, "triton")(torch.zeros(T, B, IN, dtype=torch.float64))


class Branching(Rows):
    """A cell for which no kernels can be derived."""

    name = "branching_of_the_tests"

    @staticmethod
    def step(x, r, s, p):
        return x.h if s.h.sum() > 0 else r.h


@here
@pytest.mark.parametrize("backend", ("triton", "triton-stepwise", "triton-persistent"))
def test_what_cannot_be_derived_is_refused_with_the_line(backend):
    call = Call(Branching, "recurrence", torch.device("cpu"), torch.float64, ())
    with pytest.raises(
        RuntimeError, match=rf"no kernels can be derived for .*{Path(__file__).name}:\d+: step of Branch"
    ):
        choose.choose(call, backend)


class Twin(Cell):
    """GRU's equations, written differently."""

    name = "twin_of_gru"
    gates, states = cells.GRU.gates, ("h",)

    @staticmethod
    def step(x, r, s, p):
        forget, keep = sigmoid(x.r + r.r), sigmoid(x.z + r.z)
        fresh = tanh(x.n + forget * r.n)
        return fresh + keep * (s.h - fresh)


@here
def test_a_twin_of_a_cell_of_the_package_has_its_kernels():
    """To the same bits, by plans of one stage."""
    assert printed_kernels.of_one_stage(Twin) == "gru" and printed_kernels.of_one_stage(cells.MGU) is None
    layer, _ = seqcells.define(Twin)
    twin, gru = (kind(IN, H, backend="triton", dtype=torch.float64) for kind in (layer, seqcells.GRU))
    twin.load_state_dict(gru.state_dict())
    x = torch.randn(T, B, IN, dtype=torch.float64)
    found = [
        [output, *gradients([output], [*module.parameters()])] for module in (twin, gru) for output in [module(x)[0]]
    ]
    assert all(torch.equal(ours, its) for ours, its in zip(*found, strict=True))


@here
def test_a_projection_is_refused():
    module = seqcells.LSTM(IN, H, proj_size=2, backend="triton")
    with pytest.raises(RuntimeError, match="no plan of Triton projects such a cell"):
        module(torch.zeros(T, B, IN), keep=("c",))


@here
def test_rows_longer_than_a_programs_registers_are_refused(monkeypatch):
    """On a GPU; the interpreter has no registers. Cells without reductions run at any size."""
    monkeypatch.setattr(staged_stepwise, "interpreted", lambda: False)

    def reason(cell, hidden, dtype):
        call = Call(cell, "recurrence", torch.device("cpu"), dtype, (), hidden=hidden)
        return why_not_for(call, "triton")

    assert reason(Rows, 1024, torch.bfloat16) is reason(Rows, 256, torch.float64) is None
    assert reason(cells.MGU, 5000, torch.float64) is None
    assert reason(Rows, 1025, torch.float32).endswith(
        "rows of 1025 units, of which one program has registers for 1024 at most"
    )
    assert reason(Rows, 257, torch.float64).endswith("for 256 at most")


@here
def test_a_plan_says_what_settings_do_nothing():
    module, x = layer(cells.MGU, "triton"), torch.zeros(T, B, IN, dtype=torch.float64)
    with seqcells.settings(recompute=True):
        assert "recompute by seqcells.settings: nothing for a cell that runs by stages" in module.plan(x).reason
        assert "nothing for a cell" not in layer(cells.GRU, "triton").plan(x).reason
    with seqcells.settings(recompute=True, flags=True):
        module.backend = "triton-persistent"
        assert "recompute and flags by seqcells.settings: nothing for" in module.plan(x).reason
    assert "nothing for a cell" not in module.plan(x).reason
