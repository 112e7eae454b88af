"""Unusual cells: values that they leave out or pass on unchanged, which kernels must not confuse."""

import pytest
import torch
from support import heavy_if, needs_compiler

import seqcells
from seqcells.cells import Cell, Product, Times, units
from seqcells.cells.activations import maximum, sigmoid, tanh, where
from seqcells.derive.expressions import DerivationError

T, B, IN, H = 9, 5, 3, 7
pytestmark = pytest.mark.usefixtures("own_registry")


class Cells:
    class UnreadGate(Cell):
        name, gates, states = "unread_gate", ("a", "b"), ("h",)

        @staticmethod
        def step(x, r, s, p):
            return tanh(x.a + r.a) + 0.1 * r.b

    class UnreadRows(Cell):
        """A gate that only a condition reads; a row and a block of a product that nothing reads."""

        name, gates, states = "unread_rows", ("a", "b"), ("h",)
        parameters, products = {"q": ("q1", "q2")}, {"w": ("u", "v")}

        @staticmethod
        def step(x, r, s, p):
            return where(x.b > 0.0, tanh(x.a + r.a) * p.q2, 0.5 * s.h) + 0.1 * p.w(s.h).u

    class ReducedStream(Cell):
        name, gates, states, streams = "reduced_stream", ("a",), ("h",), {"v": "BH"}

        @staticmethod
        def step(x, r, s, p):
            return tanh(x.a + r.a + units.mean(x.v) + units.softmax(x.v) * s.h)

    class NumberOut(Cell):
        name, gates, states, output = "number_out", ("a",), ("h",), "y"

        @staticmethod
        def step(x, r, s, p):
            hidden = tanh(x.a + r.a)
            return hidden, units.sum(hidden)

    class ScalarOut(Cell):
        name, gates, states, output, scalars = "scalar_out", ("a",), ("h",), "y", ("w",)

        @staticmethod
        def step(x, r, s, p):
            return tanh(x.a + r.a), sigmoid(p.w)

    class PassedOn(Cell):
        """A gate that is the next state unchanged, and the operand of a product."""

        name, gates, states, products = "passed_on", ("a",), ("h", "g"), {"w": ("w",)}

        @staticmethod
        def step(x, r, s, p):
            return tanh(r.a + p.w(x.a)), x.a

    class OtherOutput(Cell):
        name, gates, states, output = "other_output", ("a", "o"), ("h",), "y"

        @staticmethod
        def step(x, r, s, p):
            hidden = tanh(x.a + r.a)
            return hidden, sigmoid(x.o + r.o) * hidden

    class SecondState(Cell):
        """The output is the second state, and wider than the first."""

        name, gates, states, output = "second_state", ("a",), {"m": "K", "h": "H"}, "h"
        sizes, options, products = {"K": "memory"}, {"memory": 6}, {"down": Product(("d",), "KH")}

        @staticmethod
        def step(x, r, s, p):
            hidden = tanh(x.a + r.a * s.h)
            return tanh(p.down(hidden) + s.m), hidden

    class Conditions(Cell):
        """Conditions on a number of each sequence and on one number for all, and a constant in place of a tensor."""

        name, gates, states, scalars, streams = "conditions", ("a",), ("h",), ("w",), {"m": "TB"}

        @staticmethod
        def step(x, r, s, p):
            hidden = where(x.m > 0.5, tanh(x.a + r.a), 0.5 * s.h)
            hidden = where(p.w > 0.0, hidden, 0.25 * hidden)
            return maximum(where(units.mean(x.a) > 0.0, hidden, 2 * hidden), -0.5)


ALL = {name: cell for name, cell in vars(Cells).items() if isinstance(cell, type)}


def modules(cell, kind=seqcells.RecurrentLayer, **options):
    """A module on the reference and one on the CPU engine, with the same weights."""
    made = type(cell.__name__, (kind,), {"cell": cell, "__module__": __name__})
    ours = made(IN, H, dtype=torch.float64, backend="cpu", **options)
    theirs = made(IN, H, dtype=torch.float64, backend="reference", **options)
    theirs.load_state_dict(ours.state_dict())
    return theirs, ours


def everything(layer, x, given):
    """Output, states and all gradients."""
    output, states = layer(x, **given)
    results = [output, *((states,) if isinstance(states, torch.Tensor) else states)]
    seeds = [torch.linspace(-1, 1, each.numel(), dtype=each.dtype).view_as(each) for each in results]
    leaves = [x, *layer.parameters()]
    return [*results, *torch.autograd.grad(results, leaves, seeds, allow_unused=True, materialize_grads=True)]


@needs_compiler
@heavy_if(lambda name, form: name not in ("UnreadRows", "PassedOn", "SecondState") or form == "bounded")
@pytest.mark.parametrize("form", ["plain", "bounded", "deep"])
@pytest.mark.parametrize("name", ALL)
def test_results_and_gradients(name, form, compiling):
    """The third call with the same signature is prepared, and reuses memory of other values."""
    torch.manual_seed(0)
    cell, deep = ALL[name], {"num_layers": 2, "bidirectional": True} if form == "deep" else {}
    if name == "NumberOut" and deep:
        deep = {"bidirectional": True}
    layers = modules(cell, **deep)
    x = torch.randn(T, B, IN, dtype=torch.float64, requires_grad=True)
    sizes = {"T": T, "B": B, "H": H}
    given = {key: torch.rand([sizes[axis] for axis in axes]).double() for key, axes in cell.streams.items()}
    if form == "bounded":
        given |= {"lengths": torch.tensor([T, 4, 0, 5, 1]), "reset": torch.rand(T, B) < 0.3}
    expected = everything(layers[0], x, given)
    for _ in range(4):
        torch.testing.assert_close(everything(layers[1], x, given), expected)


@needs_compiler
@pytest.mark.parametrize("name", ["OtherOutput", "SecondState"])
def test_streams_of_steps(name, compiling):
    _, layer = modules(ALL[name])
    x = torch.randn(T, B, IN, dtype=torch.float64)
    with torch.no_grad():
        stream, expected = layer.stream(B), layer(x)[0]
        for t in range(T):
            torch.testing.assert_close(stream(x[t]), expected[t])


@needs_compiler
def test_cell_modules(compiling):
    """The output is the second state, wider than the first."""
    theirs, ours = modules(Cells.SecondState, seqcells.RecurrentCell)
    x = torch.randn(B, IN, dtype=torch.float64, requires_grad=True)
    for _ in range(5):
        with torch.no_grad():
            torch.testing.assert_close(ours(x), theirs(x))
        gradients = [torch.autograd.grad(module(x)[1].sum(), x) for module in (ours, theirs)]
        torch.testing.assert_close(*gradients)


def test_a_condition_is_no_number():
    class Counted(Cell):
        name, gates, states = "counted", ("a",), ("h",)

        @staticmethod
        def step(x, r, s, p):
            return tanh(x.a + r.a) * (x.a > 0)

    layer = type("Counted", (seqcells.RecurrentLayer,), {"cell": Counted})(IN, H, backend="cpu")
    with pytest.raises(RuntimeError, match=r"test_odd_cells.py:\d+: step of Counted: a condition .* goes into where"):
        layer(torch.randn(T, B, IN))
    assert issubclass(DerivationError, ValueError)


def test_recurrent_dropout_of_a_first_state_of_several():
    class Stacked(Cell):
        name, gates, states, options = "stacked_states", ("a",), {"h": Times("H", lambda options: options.n)}, {"n": 2}

        @staticmethod
        def step(x, r, s, p):
            return tanh(x.a + r.a), tanh(s.h[0] + s.h[1])

    kind = type("Stacked", (seqcells.RecurrentLayer,), {"cell": Stacked})
    layer = kind(IN, H, recurrent_dropout=0.5, backend="reference")
    assert layer(torch.randn(T, B, IN))[0].shape == (T, B, H)


WRONG = {
    "a name that is none": ({"name": 3}, "must state its name as a string, not 3"),
    "a size of two letters": ({"sizes": {"KK": "memory"}}, "cannot have a size 'KK': it takes one letter"),
    "a size that is known": ({"sizes": {"T": "memory"}}, "cannot have a size 'T'"),
    "a state twice": ({"states": ("h", "h")}, "names its state h twice"),
    "no rows": ({"parameters": {"q": ()}}, "must state the rows of its parameter q"),
    "an input of a sequence": ({"streams": {"input": "BH"}}, "cannot read its input as 'BH': choose 'TBH' or 'TBF'"),
    "axes in another order": ({"streams": {"v": "BTH"}}, "has a stream v of axes 'BTH': T comes first, then B"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_a_cell_may_not_declare(what):
    declared, words = WRONG[what]
    with pytest.raises(TypeError, match=words):
        type(
            "Wrong",
            (Cell,),
            {"name": "w", "gates": ("a",), "states": ("h",), "step": lambda x, r, s, p: x.a, **declared},
        )
