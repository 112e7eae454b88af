"""`swap` with an example reports the times before and after, and changes nothing else."""

import random
import re
import time

import numpy
import pytest
import torch
from torch import nn

import seqcells


class Slow(nn.GRU):
    """Its forward takes 20 ms."""

    def forward(self, input, hx=None):
        time.sleep(0.02)
        return super().forward(input, hx)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.other, self.slow = nn.LSTM(4, 8), nn.GRU(4, 8), Slow(8, 8)
        self.norm = nn.BatchNorm1d(8)
        self.register_buffer("seen", torch.zeros(1))
        self.calls, self.modes = 0, []

    def forward(self, input, scale=1, *, unused=False):
        self.calls += 1
        self.modes.append((torch.is_grad_enabled(), self.training))
        self.seen += 1
        self.last = input
        x = self.norm(self.slow(self.rnn(input)[0])[0][-1])
        input.zero_()
        return x * scale + torch.rand(1) + random.random() + numpy.random.rand()


def randomness():
    return torch.rand(3).tolist(), random.random(), numpy.random.rand()


EXAMPLES = {
    "tensor": lambda input: input,
    "tuple": lambda input: (input, 2),
    "dict": lambda input: {"input": input, "scale": 2, "unused": True},
}


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr("seqcells.io.swap_timing.BUDGET", 0.0)


@pytest.mark.parametrize("form", EXAMPLES)
def test_times_are_told_and_nothing_else_changes(form, short):
    torch.manual_seed(0), random.seed(0), numpy.random.seed(0)
    model, input = Model(), torch.ones(5, 3, 4)
    model.norm.eval()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    torch.manual_seed(1)
    expected = randomness()
    torch.manual_seed(1), random.seed(0), numpy.random.seed(0)
    report = seqcells.swap(model, example=EXAMPLES[form](input))
    assert randomness() == expected
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert model.training and not model.norm.training
    assert model.calls == 0 and not hasattr(model, "last") and input.eq(1).all()
    assert set(model.modes) == {(False, False)}, "no gradients, eval mode"
    assert type(model.rnn) is seqcells.LSTM and not model.rnn._forward_hooks
    assert min(report.times.model) > 0.02 and max(report.times.layers[model.rnn]) < max(report.times.model)
    assert model.other not in report.times.layers
    figures = r"[\d.]+ ms before, [\d.]+ ms after, [\d.]+× as fast"
    lines = str(report).splitlines()
    assert re.fullmatch(f"rnn: now seqcells.LSTM, {figures}", lines[0])
    assert lines[1] == "other: now seqcells.GRU, not called with this example"
    assert re.fullmatch(rf"the model: {figures} \(medians in eval mode, under no_grad\)", lines[2])


def test_the_layers_time_is_its_own():
    """By a clock that only the layers advance: 3 s a call as torch.nn's layer, 1 s as ours. A run of the model has two
    calls."""
    from seqcells.io import swap_timing

    now = [0.0]

    model = nn.Sequential(nn.LSTM(2, 2))
    old = seqcells.LSTM.forward, nn.LSTM.forward

    def ticking(which, seconds):
        def forward(self, *args):
            now[0] += seconds
            return which(self, *args)

        return forward

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(swap_timing.time, "perf_counter", lambda: now[0])
        patch.setattr(seqcells.modules.recurrent_layer.RecurrentLayer, "forward", ticking(old[0], 1.0))
        patch.setattr(nn.LSTM, "forward", ticking(old[1], 3.0))
        report = seqcells.swap(model, example=torch.zeros(1, 1, 2))
    assert report.times.model == report.times.layers[model[0]] == (3.0, 1.0)
    assert "3e+03 ms before, 1e+03 ms after, 3.00× as fast" in str(report)


def test_it_ends_in_some_seconds():
    model = nn.Sequential(nn.LSTM(4, 8))
    begin = time.perf_counter()
    seqcells.swap(model, example=torch.ones(2, 1, 4))
    assert time.perf_counter() - begin < 20


def test_an_example_that_the_model_refuses_leaves_it_as_it_was(short):
    model = Model()
    with pytest.raises(ValueError, match="Expected input"):
        seqcells.swap(model, example=torch.ones(4))
    assert type(model.rnn) is nn.LSTM and model.training and model.calls == 0


def test_without_anything_to_replace_nothing_is_told(short):
    report = seqcells.swap(nn.Sequential(nn.Linear(2, 2)), example=torch.ones(1, 2))
    assert report.times is None and str(report) == "no recurrent module of torch.nn in this model"


def test_a_module_that_is_not_reached_in_each_call():
    class Alternating(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.calls = nn.LSTM(3, 4), nn.GRU(3, 4), 0

        def forward(self, input):
            self.calls += 1
            return (self.first if self.calls % 2 else self.second)(input)[0]

    model = Alternating()
    report = seqcells.swap(model, example=torch.randn(2, 1, 3))
    assert {*report.times.layers} == {model.first, model.second}


def test_a_model_that_raises_leaves_random_numbers_as_they_were():
    class Raising(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.LSTM(3, 4)

        def forward(self, input):
            random.random(), numpy.random.rand(), torch.rand(1)
            raise ValueError("no")

    model, example = Raising(), torch.randn(2, 1, 3)
    before = random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state()
    with pytest.raises(ValueError, match="no"):
        seqcells.swap(model, example=example)
    assert random.getstate() == before[0] and numpy.random.get_state()[1].tolist() == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])


def test_a_compiled_model_is_not_timed():
    model = torch.compile(nn.Sequential(nn.LSTM(3, 4)))
    with pytest.raises(ValueError, match="swap first, then compile"):
        seqcells.swap(model, example=torch.randn(2, 1, 3))
    assert seqcells.swap(model).replaced
