"""Every cell's printed kernels compute its equations and their gradients, in no more operations than by hand."""

import functools
import subprocess
import sys

import pytest
import torch
from elementwise import ROOT, interpreted, needs_triton

from seqcells.cells import BUILT_IN, Cell
from seqcells.cells.activations import ACTIVATIONS, Activation, maximum, sigmoid, stop, tanh, where
from seqcells.derive.__main__ import printed
from seqcells.derive.expressions import DerivationError
from seqcells.derive.one_stage import one_stage
from seqcells.derive.print_loop import cpp_cells
from seqcells.derive.print_one_stage import triton

N = 37
RESULTS = "n", "dx", "dr", "ds", "dp"
DTYPES = (torch.float32, torch.float64)


def cell_with(activation: Activation) -> type[Cell]:
    """A cell that tests an activation's gradient in the printed kernels."""

    def step(x, r, s, p):
        return activation(x.a * r.a + p.u) * s.h

    def of_positive(x, r, s, p):
        return activation(x.a * x.a + r.a * r.a + 0.5 + 0 * p.u) * s.h

    def chooses(x, r, s, p):
        larger = maximum(x.a * r.a, s.h)
        return where(x.a > p.u, larger * p.u, stop(larger) * x.a - larger / r.a)

    steps = {"rsqrt": of_positive} | dict.fromkeys(("where", "maximum", "stop"), chooses)
    fields = {"name": f"with_{activation.name}", "gates": ("a",), "states": ("h",), "parameters": {"unit": ("u",)}}
    return type(f"With_{activation.name}", (Cell,), fields | {"step": staticmethod(steps.get(activation.name, step))})


OTHERS = {cell.name: cell for cell in map(cell_with, ACTIVATIONS.values())}


@functools.cache
def case(name: str, dtype: torch.dtype) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Arguments (count, N), and the results of the reference and of autograd in float64."""
    cell = {**BUILT_IN, **OTHERS}[name]
    torch.manual_seed(0)
    counts = {"x": len(cell.gates), "r": len(cell.recurrent_gates), "s": len(cell.states), "p": len(cell.P._fields)}
    given = {k: torch.randn(count, N, dtype=torch.float64).to(dtype) for k, count in counts.items()}
    given["s"] = given["s"].abs() + 0.5 if name == "slstm" else given["s"]  # its normaliser is positive
    given["d"] = torch.randn(counts["s"], N, dtype=torch.float64).to(dtype)
    leaves = {k: list(given[k].double().requires_grad_().unbind()) for k in counts}
    new = torch.stack(cell.advance(*leaves.values()))
    flat = [leaf for group in leaves.values() for leaf in group]
    gradients = torch.autograd.grad((new * given["d"]).sum(), flat, allow_unused=True, materialize_grads=True)
    expected = {"n": new.detach()}
    for k, part in zip(counts, torch.stack(gradients).split(list(counts.values())), strict=True):
        expected[f"d{k}"] = part
    return given, expected


def check(actual: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], dtype: torch.dtype) -> None:
    for key in RESULTS:
        assert actual[key].dtype == dtype
        # Eight operations in sequence, so eight roundings at the size of the terms.
        size = expected[key].abs().clamp_min(1)
        error = ((actual[key].double() - expected[key]).abs() / size).max() if expected[key].numel() else 0
        assert error <= 8 * torch.finfo(dtype).eps, f"{key}: {error}"


@pytest.fixture(scope="module")
def by_triton() -> dict:
    keys = [(name, dtype) for dtype in DTYPES for name in BUILT_IN]
    results = interpreted([("cell", name, case(name, dtype)[0]) for name, dtype in keys])
    others = [(name, dtype) for dtype in DTYPES for name in OTHERS]
    printed = triton([one_stage(cell) for cell in OTHERS.values()])
    results += interpreted([("cell", name, case(name, dtype)[0]) for name, dtype in others], printed)
    return dict(zip(keys + others, results, strict=True))


@needs_triton
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [*BUILT_IN, *OTHERS])
def test_triton_in_the_interpreter(name, dtype, by_triton):
    check(by_triton[name, dtype], case(name, dtype)[1], dtype)


def test_printed_files_are_up_to_date():
    for path, text in printed().items():
        assert path.read_text() == text, f"{path.name} differs from the equations: run `make cells`"


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_shared_gradients_are_said_to_be(name):
    made = one_stage(BUILT_IN[name])
    assert made.same_dx == {"lstm": (0, 1, 2, 3), "gru": (0, 1, -1)}[name]


def test_little_is_saved():
    saved = {name: one_stage(cell).fields["saved"] for name, cell in BUILT_IN.items()}
    assert saved["lstm"] == ("input", "forget", "candidate", "output")
    assert saved["gru"] == ("r_n", "reset", "update", "new")
    assert saved["rnn_tanh"] == saved["rnn_relu"] == ()


# Operations by hand: d_output = dh·t; d_cell = dc + dh·o·(1 - t·t); four gates' d·y·(1 - y) or d·(1 - y·y), the
# products d_cell·{c, g, i, f}, and t = tanh(c).
LSTM_BY_HAND = 1 + 5 + 3 * 3 + 3 + 4 + 1
# d_new = dh·(1 - z); dz = dh·(h - n); dh·z; dn = d_new·(1 - n·n); dn·r; dn·r_n; r's and z's d·y·(1 - y), 1 - z once.
GRU_BY_HAND = 2 + 2 + 1 + 3 + 1 + 1 + 3 + 2


@pytest.mark.parametrize(("name", "by_hand"), [("lstm", LSTM_BY_HAND), ("gru", GRU_BY_HAND)])
def test_backward_is_no_longer_than_by_hand(name, by_hand):
    assert sum(bool(value.inner) for value in one_stage(BUILT_IN[name]).backward.values) <= by_hand


@pytest.mark.parametrize(("name", "own"), [("lstm", 0), ("gru", 1)])
def test_no_subtraction_that_the_equations_do_not_have(name, own):
    """Except for the 1 - y of sigmoid and tanh; GRU's own subtraction is h - n."""
    values = one_stage(BUILT_IN[name]).backward.values
    assert sum(value.op == "-" and value.args[0].args != (1,) for value in values) == own


# What cannot be derived.


def cell_of(step, states=("h",), projection=False):
    fields = {"name": "odd", "gates": ("a",), "states": states, "projection": projection, "step": staticmethod(step)}
    return type("Odd", (Cell,), fields)


def branches(x, r, s, p):
    if x.a > 0:
        return x.a
    return r.a


def calls_torch(x, r, s, p):
    return torch.sin(x.a + r.a)


def calls_a_method(x, r, s, p):
    return (x.a + r.a).clamp(min=0)


def adds_text(x, r, s, p):
    return x.a + "r.a"


def takes_a_root(x, r, s, p):
    return (x.a + r.a) ** 0.5


def names_no_gate(x, r, s, p):
    return x.b + r.a


@pytest.mark.parametrize("step", [branches, calls_torch, calls_a_method, adds_text, takes_a_root, names_no_gate])
def test_what_cannot_be_derived_is_named_with_its_line(step):
    with pytest.raises(DerivationError) as error:
        one_stage(cell_of(step))
    line = step.__code__.co_firstlineno + 1
    assert f"test_derive.py:{line}: step of Odd" in str(error.value)


def one_of_two(x, r, s, p):
    cell = s.c + tanh(x.a + r.a)
    return cell


def a_constant(x, r, s, p):
    return 1.0


def reads_the_hidden_state(x, r, s, p):
    return sigmoid(x.a + r.a) * s.h


@pytest.mark.parametrize(
    ("step", "words", "how"),
    [
        (one_of_two, "returns 1 of its 2 states (h, c)", {"states": ("h", "c")}),
        (a_constant, "returns no number for its state h", {}),
        (reads_the_hidden_state, "reads s.h, which has another size", {"projection": True}),
    ],
)
def test_states_are_checked(step, words, how):
    with pytest.raises(DerivationError, match=r"test_derive.py:\d+: step of Odd: ") as error:
        one_stage(cell_of(step, **how))
    assert words in str(error.value)


def test_names_that_a_language_keeps_to_itself():
    def step(x, r, s, p):
        new = tanh(x.a + r.a)
        tl = new * new
        return tl + new

    cell = cell_of(step)
    assert "const auto new_2 = tanh(x_a + " in cpp_cells([cell])
    assert "tl_ = new * new\n" in triton([one_stage(cell)])


def test_importing_the_package_derives_nothing():
    code = "import sys, seqcells; print([m for m in sys.modules if m.startswith('seqcells.derive.') or m == 'triton'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "['seqcells.derive.transformed_cells']\n"
