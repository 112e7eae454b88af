"""Subclasses of torch.nn's modules whose calls do nothing else: swap keeps their methods."""

import abc
import copy
import pickle

import pytest
import torch
from support import assert_equal_to, gradients
from torch import nn

import seqcells

INPUT = torch.randn(6, 2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(5))


class Methods:
    """A mixin."""

    def last(self, input):
        return self(input)[0][-1] * self.scale

    def through_super(self, input):
        return super().forward(input)[0]

    @property
    def twice(self):
        return 2 * self.scale


class Encoder(Methods, nn.LSTM):
    kinds = ("a",)

    def __init__(self, size, scale=3.0):
        super().__init__(size, 5, dtype=torch.float64)
        self.scale = scale
        self.head = nn.Linear(5, 2, dtype=torch.float64)

    def scored(self, input):
        return self.head(self.last(input))

    def explicitly(self, input):
        return super().forward(input)[0] + nn.LSTM.forward(self, input)[0]

    def reset_parameters(self):
        super().reset_parameters()
        self.resets = getattr(self, "resets", 0) + 1

    def extra_repr(self):
        return "own " + super().extra_repr()

    def another(self):
        return type(self)(self.input_size)

    @classmethod
    def of(cls, size):
        return cls(size)

    @staticmethod
    def one():
        return 1


class Deeper(Encoder):
    def scored(self, input):
        return 2 * super().scored(input)


class Gated(Methods, nn.GRU, abc.ABC):
    scale = 3.0


class Elman(Methods, nn.RNN):
    scale = 3.0


class Cell(nn.LSTMCell):
    def moved(self, input):
        return super().forward(input)[0] + self(input)[1]


def built(kind):
    torch.manual_seed(0)
    return nn.Sequential(kind(4) if issubclass(kind, Encoder) else kind(4, 5, dtype=torch.float64))


METHODS = {
    Encoder: (seqcells.LSTM, ("last", "through_super", "scored", "explicitly")),
    Deeper: (seqcells.LSTM, ("scored", "explicitly")),
    Gated: (seqcells.GRU, ("last", "through_super")),
    Elman: (seqcells.RNN, ("last", "through_super")),
    Cell: (seqcells.LSTMCell, ("moved",)),
}


def results(model, kind):
    """The methods' results, and the gradients of all parameters."""
    input = INPUT[0] if kind is Cell else INPUT
    outputs = [getattr(model[0], name)(input) for name in METHODS[kind][1]]
    return [each.detach() for each in outputs] + gradients(outputs, list(model.parameters()))


@pytest.mark.parametrize("kind", METHODS, ids=lambda kind: kind.__name__)
def test_methods_are_kept(kind):
    model = built(kind)
    bases, (ours, _) = kind.__mro__, METHODS[kind]
    expected, state, shown = results(model, kind), list(model.state_dict()), repr(model)
    report = seqcells.swap(model, backend="reference")
    assert report.left == {}
    assert str(report).startswith(f"0: now seqcells.{ours.__name__} with the methods of {kind.__qualname__}")
    assert isinstance(model[0], ours) and isinstance(model[0], kind)
    assert type(model[0]).forward is ours.forward
    assert repr(model).replace(", backend='reference'", "") == shown
    assert_equal_to(results(model, kind), expected)
    assert seqcells.swap(model) == ({}, {})
    seqcells.unswap(model)
    assert type(model[0]) is kind and kind.__mro__ == bases
    assert list(model.state_dict()) == state
    assert_equal_to(results(model, kind), expected, 0)


@pytest.mark.parametrize("way", [copy.deepcopy, copy.copy, lambda module: pickle.loads(pickle.dumps(module))])
def test_copies(way):
    model = built(Deeper)
    expected = results(model, Deeper)
    seqcells.swap(model)
    twin = nn.Sequential(way(model[0]))
    assert type(twin[0]) is type(model[0])
    assert_equal_to(results(twin, Deeper), expected)
    seqcells.unswap(twin)
    assert type(twin[0]) is Deeper
    assert_equal_to(results(twin, Deeper), expected, 0)


def test_what_goes_by_the_class_itself():
    """Properties, class attributes, class methods, and methods that make another module of the class: the new module is
    ours too."""
    module = built(Encoder)[0]
    ours = seqcells.LSTM.from_torch(module)
    assert (ours.twice, ours.kinds, ours.one(), ours.resets) == (6.0, ("a",), 1, 1)
    for another in (ours.another(), type(ours).of(4)):
        assert type(another) is type(ours) and another.resets == 1 and another.backend == "auto"
        another.load_state_dict(module.state_dict())
        assert_equal_to([another.scored(INPUT).detach()], [module.scored(INPUT).detach()])
    assert type(ours.to_torch()) is Encoder


def with_body(base=nn.LSTM, **body):
    return type("Own", (base,), body)


class Meta(type):
    pass


REFUSED = {
    **{
        name: (
            with_body(**{name: lambda self, *args: None}),
            f"Own overrides {name}, which its calls or copies go through",
        )
        for name in (
            *("forward", "__call__", "flatten_parameters", "check_input", "check_forward_args", "permute_hidden"),
            *("check_hidden_size", "get_expected_hidden_size", "get_expected_cell_size", "_update_flat_weights"),
            *("__getattr__", "__setattr__", "_apply", "__getstate__", "__reduce__", "__deepcopy__"),
        )
    },
    "_flat_weights": (with_body(_flat_weights=property(lambda self: [])), "Own has _flat_weights"),
    "a mixin's": (type("Own", (type("Mixin", (), {"forward": None}), nn.GRU), {}), "Mixin overrides forward"),
    "a base's": (with_body(with_body(forward=None)), "Own overrides forward"),
    "a cell's": (with_body(nn.GRUCell, forward=None), "Own overrides forward"),
    "a name of ours": (with_body(stream=lambda self: None), "Own has stream, which seqcells.LSTM has for itself"),
    "metaclass": (Meta("Own", (nn.LSTM,), {}), "Own has a metaclass of its own, Meta"),
    "of the base": (with_body(nn.RNNBase), "expected exactly a module torch.nn has, got Own"),
}


@pytest.mark.parametrize(("kind", "words"), REFUSED.values(), ids=REFUSED)
def test_what_concerns_the_calls_is_left_with_the_reason(kind, words):
    module = kind.__new__(kind)
    object.__setattr__(module, "__dict__", vars(nn.LSTM(2, 3)))
    before = vars(module).copy()
    left = seqcells.swap(nn.ModuleList([module])).left
    assert left["0"].startswith(words)
    assert type(module) is kind and vars(module) == before


def test_parametrized():
    model, twin = built(Encoder), built(Encoder)
    for each in (model, twin):
        nn.utils.parametrizations.weight_norm(each[0], "weight_hh_l0")
    expected = results(twin, Encoder)
    seqcells.swap(model)
    assert isinstance(model[0], seqcells.LSTM)
    assert_equal_to(results(model, Encoder), expected)
    seqcells.unswap(model)
    nn.utils.parametrize.remove_parametrizations(model[0], "weight_hh_l0")
    assert type(model[0]) is Encoder


def test_a_subclass_that_has_run_can_be_copied():
    model, input = nn.Sequential(Elman(3, 4)), torch.randn(2, 1, 3)
    seqcells.swap(model, backend="cpu")
    with torch.no_grad():
        expected = [model(input)[0] for _ in range(3)][-1]
        for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert torch.equal(copied(input)[0], expected) and type(copied[0]) is type(model[0])
